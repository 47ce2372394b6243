"""Panels as Grafana's JSON, by Grafana's own library."""

from itertools import count
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, heatmap, stat, table, timeseries
from grafana_foundation_sdk.builders import prometheus as prometheus_builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.spec import INSTANCE, RED, Dashboard, Panel, Query, Style

__all__ = ["grafana_json"]

_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_ALL = models.VariableOption(selected=True, text="All", value="$__all")
_HIDDEN_COLUMNS = ("Time", "Value", "__name__", "job")
_STEP = common_models.LineInterpolation.STEP_AFTER
_ALWAYS, _NEVER = common_models.VisibilityMode.ALWAYS, common_models.VisibilityMode.NEVER
_HEIGHTS = {"stat": 4, "table": 4, "lines": 8, "heatmap": 8}
#: What an override says of a query's lines.
_STYLES: dict[Style, dict[str, object]] = {
    "line": {},
    "points": {"custom.showPoints": _ALWAYS, "custom.pointSize": 5},
    "dots": {"custom.drawStyle": common_models.GraphDrawStyle.POINTS, "custom.pointSize": 9},
    "dashed": {"custom.lineStyle": {"fill": "dash", "dash": [8, 6]}, "custom.lineWidth": 1},
    "step": {"custom.lineInterpolation": _STEP},
}

_Builder = timeseries.Panel | stat.Panel | heatmap.Panel | table.Panel


def grafana_json(board: Dashboard) -> str:
    """Return a dashboard as Grafana's provisioning reads it, the same bytes each time."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["nplm-stream"])
        .time("now-30m", "now")
        .refresh("5s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(_link())
        .annotation(_alarms())
    )
    for variable in _variables(scales=board.scales):
        made.with_variable(variable)
    ids = count(1)
    for row in board.rows:
        made.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            made.with_panel(_panel(panel).id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _link() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("NPLM stream")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["nplm-stream"])
        .include_vars(True)
        .keep_time(True)
    )


def _alarms() -> dashboard.AnnotationQuery:
    """Return the vertical lines that mark alarms in every panel."""
    return (
        dashboard.AnnotationQuery()
        .name("Alarms")
        .datasource(_SOURCE)
        .enable(True)
        .icon_color(RED)
        .expr(f"increase(nplm_stream_alarms_total{{{INSTANCE}}}[$__rate_interval]) > 0")
    )


def _variables(*, scales: bool) -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    found: list[dashboard.DatasourceVariable | dashboard.QueryVariable] = [source]
    found.append(_label("instance", "Consumer", 'nplm_stream_build_info{job="nplm-stream"}'))
    if scales:
        found.append(_label("scale", "Time scale", f"nplm_stream_trials_total{{{INSTANCE}}}"))
    return found


def _label(name: str, label: str, series: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": f"label_values({series}, {name})", "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .current(_ALL)
    )


def _panel(panel: Panel) -> _Builder:
    made = _builder(panel)
    made.title(panel.title).description(panel.description).datasource(_SOURCE)
    made.unit(panel.unit).span(panel.span).height(_HEIGHTS[panel.kind])
    for ref_id, query in zip(ascii_uppercase, panel.queries, strict=False):
        made.with_target(_target(query, panel.kind).ref_id(ref_id))
    if panel.steps:
        made.thresholds(_thresholds(panel))
    return made


def _builder(panel: Panel) -> _Builder:
    if panel.kind == "stat":
        return _stat(panel)
    if panel.kind == "heatmap":
        return _heatmap(panel)
    if panel.kind == "table":
        return _table()
    return _lines(panel)


def _target(query: Query, kind: str) -> prometheus_builder.Dataquery:
    made = prometheus_builder.Dataquery().expr(query.expr).datasource(_SOURCE)
    if kind == "table":
        return made.instant().format(PromQueryFormat.TABLE)
    shape = PromQueryFormat.HEATMAP if kind == "heatmap" else PromQueryFormat.TIME_SERIES
    return made.range().format(shape).legend_format(query.legend)


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    (_, lowest), *others = panel.steps
    steps = [models.Threshold(value=None, color=lowest)]
    steps += [models.Threshold(value=value, color=colour) for value, colour in others]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _lines(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(2)
        .fill_opacity(20 if panel.stacked else 0)
        .show_points(_NEVER)
        .span_nulls(True)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if panel.floor is not None:
        made.min(panel.floor)
    if panel.ceiling is not None:
        made.max(panel.ceiling)
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if panel.log:
        logarithmic = common_models.ScaleDistribution.LOG
        made.scale_distribution(common.ScaleDistributionConfig().type(logarithmic).log(10))
    if panel.steps:
        dashed = common_models.GraphThresholdsStyleMode.DASHED
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
    for ref_id, query in zip(ascii_uppercase, panel.queries, strict=False):
        looks = dict(_STYLES[query.style])
        if query.colour:
            looks["color"] = {"mode": "fixed", "fixedColor": query.colour}
        if looks:
            properties = [models.DynamicConfigValue(key, value) for key, value in looks.items()]
            made.override_by_query(ref_id, properties)
    return made


def _stat(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if panel.decimals is not None:
        made.decimals(panel.decimals)
    if panel.words:
        results = {str(value): models.ValueMappingResult(text=text) for value, text in panel.words}
        made.mappings([models.ValueMap(options=results)])
    return made


def _heatmap(panel: Panel) -> heatmap.Panel:
    return (
        heatmap.Panel()
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit(panel.unit))
        .cell_values(heatmap.CellValues().unit("cps"))
        .show_legend()
    )


def _table() -> table.Panel:
    hidden = {"excludeByName": dict.fromkeys(_HIDDEN_COLUMNS, True)}
    return (
        table.Panel()
        .show_header(True)
        .with_transformation(models.DataTransformerConfig(id_val="organize", options=hidden))
    )
