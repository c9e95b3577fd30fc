"""Secrets that no record may have; open it to change what a command, a parameter or a patch is shown without.

    NAME=VALUE, --NAME VALUE, NAME: VALUE     NAME ends as `_NAME` says; also in a header, YAML, JSON or a dict
    Authorization: VALUE, Bearer VALUE, -u USER:VALUE, scheme://VALUE@host

Of facts under a name, such as parameters, those are hidden that the name says to be secret. A token or a key may be a
model's or a table's (`class_token: learned`, `label_key: cells`): there the value must look like a secret, too.
"""

import re
from collections.abc import Sequence
from typing import Any

HIDDEN = "***"

_NAME = r"(?:token|secret|password|passwd|passphrase|credentials?|auth|authorization|api_?key|[_-]key|(?<=\w)[_-]pwd)"
_VALUE = r"(?:'[^']*'|\"[^\"]*\"|\S+)"
_ITEM = r"(?:\\(?P<quote>['\"]).*?\\(?P=quote)|'[^']*'|\"(?:[^\"\\]|\\.)*\"|\{[^{}]*\}|\[[^\[\]]*\]|[^\s,{}\[\]'\"]+)"
"""A value in JSON or YAML, in quotes of its own or in quotes that a shell's text escapes."""
_SECRETS = (
    (re.compile(rf"(?is)\A([\w.-]*{_NAME}=).+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)({_NAME}=){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(?<!\S)(--?[\w.-]*{_NAME}\s+)(?!-){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?is)({_NAME}\\?['\"]\s*:\s*){_ITEM}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?is)([{{,]\s*[\w.-]*{_NAME}\s*:\s*){_ITEM}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?im)^([ \t]*(?:-[ \t]+|--?[\w.-]+=)?[\w.-]*{_NAME}:[ \t]+)\S[^\n]*"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(['\"](?:--?[\w.-]+=)?[\w.-]*{_NAME}:\s*)[^'\"\n]+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(?<![\w./-])([\w.-]*{_NAME}:[ \t]+)(?!\*){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(?<![\w./-])((?=-?\w+-)[\w-]*{_NAME}:)[^\s'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(authorization:\s*)[^\s'\"][^'\"\n]*"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\bbearer\s+)[^\s'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?<!\S)((?:-u\s*|--(?:proxy-)?user[\s=]+)[^\s:]+:)\S+"), rf"\1{HIDDEN}"),
    (re.compile(r"(://)[^/?#\s]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(://)[^/@?#\s:'\"[]*:(?!\d+(?:[/?#\s]|\Z))(?:(?!://)[^@\s'\"])+@"), rf"\1{HIDDEN}@"),
)
_SUSPECT = re.compile(rf"(?i){_NAME}|bearer|-u|://")
"""What a text without any secret seldom has."""
_LOGIN_OPTION = re.compile(r"-u|--(?:proxy-)?user")
_ADDED = re.compile(rb"(?m)^\+(?!\+\+ ).*$")
_LITERAL = (  # code that only handles a secret, such as token=read(), stays as it is
    (re.compile(rf"(?i)({_NAME}['\"]?\s*[=:]\s*)(['\"])[^'\"\s]{{4,}}\2".encode()), rf"\1\2{HIDDEN}\2".encode()),
    (
        re.compile(
            rf"(?i)\A(\+\s*(?:-\s+)?(?:export\s+)?[\w.-]*{_NAME}(?:=|:\s+))(?=\S*\d)[\w+/.~=-]{{6,}}(\s*)\Z".encode()
        ),
        rf"\1{HIDDEN}\2".encode(),
    ),
    (re.compile(rb"(?i)(\bbearer\s+)[\w+/.~=-]{6,}"), rf"\1{HIDDEN}".encode()),
    (re.compile(rb"(://)[^/@?#\s:'\"]+:[^/@?#\s]+@"), rf"\1{HIDDEN}@".encode()),
)
_SECRET_OPTION = re.compile(rf"(?i)--?[\w.-]*{_NAME}")
_SECRET_KEY = re.compile(rf"(?i).*{_NAME}")
_WORD_KEY = re.compile(r"(?i)(?!.*(?:api|access|secret|private|auth)[_-]?(?:key|token)).*(?:token|[_-]key)")
_RANDOM = re.compile(r"(?i)(?=[a-z]*\d)(?=\d*[a-z])[a-z\d]{16,}|[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}")
"""Letters and digits, 16 and more in one: 80 bits of a secret, and hardly a word; or a UUID."""


def masked(command: Sequence[str]) -> list[str]:
    """A command without its secrets.

    A name is secret if it ends in token, secret, password, passwd, passphrase, credential(s), auth(orization), apikey,
    -key, _key or, after another word, -pwd or _pwd. Hidden are what follows NAME= (all of it, or a word within a longer
    text), --NAME, NAME: in a header or mapping, -u USER: or --user USER:, and who logs in in a URL (scheme://WHO@host).
    """
    shown = []
    before = ""
    for argument in command:
        hide = _SECRET_OPTION.fullmatch(before) and not argument.startswith("-")
        user, colon, _ = argument.partition(":")
        login = colon and _LOGIN_OPTION.fullmatch(before)
        shown.append(HIDDEN if hide else f"{user}:{HIDDEN}" if login else _masked_text(argument))
        before = argument
    return shown


def masked_facts(value: Any) -> Any:
    """JSON values without what stands under a secret name; other texts as those of a command."""
    if isinstance(value, str):
        return _masked_text(value)
    if isinstance(value, list):
        return [masked_facts(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: HIDDEN if isinstance(item, str | list | dict) and _is_secret(key, item) else masked_facts(item)
        for key, item in value.items()
    }


def _is_secret(name: str, value: str | list[Any] | dict[str, Any]) -> bool:
    if _SECRET_KEY.fullmatch(name) is None:
        return False
    return _WORD_KEY.fullmatch(name) is None or _RANDOM.search(str(value)) is not None


def _masked_text(text: str) -> str:
    if _SUSPECT.search(text) is None:
        return text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def masked_patch(patch: bytes) -> bytes:
    """The lines that a patch adds, without secret literals; the others are in the commit as they are."""

    def mask(line: re.Match[bytes]) -> bytes:
        text = line[0]
        for pattern, replacement in _LITERAL:
            text = pattern.sub(replacement, text)
        return text

    return _ADDED.sub(mask, patch)
