"use strict";
const $ = (id) => document.getElementById(id);
const W = 800, H = 320, L = 44, R = 12, T = 12, B = 32;

function make(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function draw(windows) {
  const values = windows.flatMap((w) => [w.z_alarm, w.threshold_z]);
  const low = Math.min(-1, ...values), high = Math.max(5, ...values) * 1.05;
  const first = windows[0].window, last = Math.max(first + 10, windows.at(-1).window);
  const x = (i) => L + ((i - first) / (last - first)) * (W - L - R);
  const y = (z) => H - B - ((z - low) / (high - low)) * (H - T - B);
  const line = (key) => windows.map((w) => `${x(w.window)},${y(w[key])}`).join(" ");
  const nodes = [make("line", { class: "axis", x1: L, x2: W - R, y1: y(0), y2: y(0) })];
  const step = Math.max(1, Math.ceil((high - low) / 8));
  for (let z = Math.ceil(low / step) * step; z <= high; z += step)
    nodes.push(make("text", { class: "tick", x: L - 8, y: y(z) + 4, "text-anchor": "end" }, z));
  nodes.push(make("text", { class: "tick", x: L, y: H - 8 }, `window ${first}`));
  nodes.push(make("text", { class: "tick", x: W - R, y: H - 8, "text-anchor": "end" }, last));
  nodes.push(make("polyline", { class: "threshold", points: line("threshold_z") }));
  nodes.push(make("polyline", { class: "series", points: line("z_alarm") }));
  for (const w of windows) {
    const point = make("circle", { class: w.alarm ? "point alarm" : "point", cx: x(w.window), cy: y(w.z_alarm), r: 4 });
    point.append(make("title", {}, `window ${w.window}: Z ${w.z_alarm.toFixed(2)}, t ${w.t.toFixed(1)}, ${w.n_events} events`));
    nodes.push(point);
  }
  $("plot").replaceChildren(...nodes);
}

async function update() {
  try {
    const data = await (await fetch("results.json")).json();
    $("events").textContent = data.events.toLocaleString("en");
    $("fill").textContent = `${Math.round(100 * data.fill)} %`;
    $("alarms").textContent = data.alarms;
    $("calibration").textContent = `Calibrated on ${data.calibrated_on}. False-alarm rate: ${data.far}.`;
    $("merged").textContent = data.merged.map((w) =>
      `${w.scale} windows as one, last Z ${w.z_alarm.toFixed(2)}${w.alarm ? ", ALARM" : ""}`).join("; ");
    if (data.windows.length) {
      const w = data.windows.at(-1);
      $("trials").textContent = w.trials;
      $("z").textContent = w.z_alarm.toFixed(2);
      $("zglobal").textContent = w.z_global.toFixed(2);
      $("state").textContent = w.alarm ? `ALARM in window ${w.window}` : `window ${w.window}: nothing unusual`;
      $("state").className = w.alarm ? "alarm" : "";
      draw(data.windows);
    }
  } catch {
    $("state").textContent = "the consumer does not answer";
    $("state").className = "alarm";
  }
  setTimeout(update, 1000);
}
update();
