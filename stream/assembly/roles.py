"""Which options a role has, and which it has not."""

import argparse

from engines.errors import ParameterError

__all__ = ["ROLES", "check_roles"]

ROLES = ("all", "embed", "test")
#: What a role has no use for, as its option and the value that it has where it is not given.
_TESTERS_ALONE = {
    "state": None,
    "results": None,
    "alarms": None,
    "publish": None,
    "notify": None,
    "window": None,
    "slide": None,
}


def check_roles(options: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        ParameterError: if there are any; names them.
    """
    role = options.role
    if options.engine is None and (role != "test" or options.reference is None):
        need = "--reference" if role == "test" else "--engine"
        msg = f"{need} must be given with --role {role}; got none; name the file"
        raise ParameterError(msg)
    if (options.forward is not None) != (role == "embed"):
        msg = (
            "--forward must come with --role embed, and only there: it is where the tester listens"
        )
        raise ParameterError(msg)
    given = [name for name, none in _TESTERS_ALONE.items() if getattr(options, name) != none]
    if role == "embed" and given:
        msg = f"--{given[0]} is the tester's; got it with --role embed; give it to --role test"
        raise ParameterError(msg)
    if role == "embed" and options.pattern == "sub" and options.curve_key is not None:
        msg = (
            "--role embed with keys cannot be with --pattern sub: it would connect to two ends, "
            "and --curve-server names the key of one; let producers connect (--reliable or pull)"
        )
        raise ParameterError(msg)
    if not options.tests and (options.state is not None or options.reliable):
        msg = "--no-tests decides nothing, so nothing can be kept; drop --state and --reliable"
        raise ParameterError(msg)
    if options.reliable and options.pattern == "sub":
        msg = "--reliable cannot be with --pattern sub, which nobody acknowledges; drop one"
        raise ParameterError(msg)
