"""Parameters that another version recorded, as the config of now sees them; open it when an old run counts as changed.

They are nested mappings as a file gives them. Keys that the config does not know stay as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any

from assay.config.fields import before, is_incidental, layout

Edit = Callable[[dict[str, Any], str, Any], None]
"""Changes a section's mapping at the leaf of this name and type, which may be absent."""


def completed(config_class: type, given: Any) -> Any:
    """With what runs did `Before` there was a key, where it is absent; null is a value."""
    return _edited(config_class, given, _complete)


def deciding_part(config_class: type, given: Any) -> Any:
    """Without `Incidental` leaves."""
    return _edited(config_class, given, _drop)


def _complete(section: dict[str, Any], name: str, hint: Any) -> None:
    if mark := before(hint):
        section.setdefault(name, mark.value)


def _drop(section: dict[str, Any], name: str, hint: Any) -> None:
    if is_incidental(hint):
        section.pop(name, None)


def _edited(config_class: type, given: Any, edit: Edit) -> Any:
    """A copy, edited at every leaf; what should be a section and is none stays."""
    if not isinstance(given, Mapping):
        return given
    found = dict(given)
    for name, hint, section, entry in layout(config_class):
        if section:
            found[name] = _edited(section, given.get(name, {}), edit)
        elif entry and isinstance(given.get(name), Mapping):
            found[name] = {key: _edited(entry, each, edit) for key, each in given[name].items()}
        else:
            edit(found, name, hint)
    return found
