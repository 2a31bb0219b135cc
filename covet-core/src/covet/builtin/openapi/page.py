"""The documentation page: the document as HTML, readable without a script, a font or anything else from elsewhere.

What it shows is text of the application's authors; all of it is escaped nevertheless.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

__all__ = ["render_page", "security_policy"]

METHODS = ("get", "put", "post", "delete", "patch", "trace")
# A page with so few operations shows them opened.
FEW = 4
MAX_DEPTH = 6
LIMITS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}", "minLength": "at least {} characters", "maxLength": "at most {} characters",
    "minItems": "at least {} items", "maxItems": "at most {} items", "minProperties": "at least {} members",
    "maxProperties": "at most {} members", "pattern": "matches {}",
}  # fmt: skip

_CODE = re.compile(r"`([^`\n]+)`")

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}<small>{version}</small></h1>
{about}
</header>
<div class="columns">
<nav aria-label="Operations">{contents}</nav>
<main>{operations}{security}{schemas}</main>
</div>
</body>
</html>
"""


@cache
def _style() -> str:
    return files("covet.builtin.openapi").joinpath("page.css").read_text(encoding="utf-8")


def security_policy() -> str:
    """The page's `Content-Security-Policy`: its own style, and nothing else."""
    digest = b64encode(sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def render_page(document: Mapping[str, Any], link: str) -> str:
    """The page for a document.

    Args:
        document: an OpenAPI 3.1 document.
        link: where the document is; empty when it is nowhere.
    """
    return _Page(document).render(link)


class _Page:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.components: Mapping[str, Any] = document.get("components", {})
        self.groups = self.grouped()
        self.opened = " open" if sum(map(len, self.groups.values())) <= FEW else ""

    def render(self, link: str) -> str:
        info = self.document["info"]
        about = _text(info.get("description", ""))
        if link:
            version = escape(self.document["openapi"])
            about += f'<p class="soft">OpenAPI {version}: <a href="{escape(link)}">{escape(link)}</a></p>'
        for server in self.document.get("servers", ()):
            url, words = escape(server["url"]), escape(server.get("description", ""))
            about += f'<p class="soft">Server <code>{url}</code> {words}</p>'
        return PAGE.format(
            title=escape(info["title"]),
            version=escape(info["version"]),
            style=_style(),
            about=about,
            contents=self.contents(),
            operations=self.operations(),
            security=self.security(),
            schemas=self.schemas(),
        )

    def grouped(self) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
        """The operations by their first tag, in the order of the document's tags; those without one first."""
        groups: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {"": []}
        groups.update({tag["name"]: [] for tag in self.document.get("tags", ())})
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    tag = next(iter(item[method].get("tags", ())), "")
                    groups.setdefault(tag, []).append((method, path, item[method]))
        return {tag: found for tag, found in groups.items() if found}

    def contents(self) -> str:
        lists = []
        for tag, operations in self.groups.items():
            items = "".join(
                f'<li><a href="#{_anchor("operation", method, path)}">'
                f'<span class="method {method}">{method.upper()}</span>'
                f"<code>{escape(path)}</code></a></li>"
                for method, path, _ in operations
            )
            lists.append(f"<b>{escape(tag or 'Operations')}</b><ul>{items}</ul>")
        return "".join(lists)

    def operations(self) -> str:
        about = {tag["name"]: tag.get("description", "") for tag in self.document.get("tags", ())}
        parts = []
        for tag, operations in self.groups.items():
            parts.append(f"<h2>{escape(tag or 'Operations')}</h2>{_text(about.get(tag, ''))}")
            parts += [self.operation(*operation) for operation in operations]
        return "".join(parts) or "<h2>Operations</h2><p>There are none yet.</p>"

    def operation(self, method: str, path: str, operation: Mapping[str, Any]) -> str:
        deprecated = operation.get("deprecated", False)
        mark = '<span class="mark">deprecated</span>' if deprecated else ""
        parts = [_text(operation.get("description", "")), self.required_security(operation), self.parameters(operation)]
        if "requestBody" in operation:
            parts.append(self.request_body(operation["requestBody"]))
        parts.append(self.responses(operation["responses"]))
        return (
            f'<details class="{"deprecated" if deprecated else "operation"}"{self.opened}>'
            f'<summary><span class="method {method}">{method.upper()}</span><code>{escape(path)}</code>'
            f'<span class="soft">{_words(operation.get("summary", ""))}</span>{mark}</summary>'
            f'<div class="body" id="{_anchor("operation", method, path)}">{"".join(parts)}</div></details>'
        )

    def parameters(self, operation: Mapping[str, Any]) -> str:
        rows = [self.parameter(self.followed(parameter)) for parameter in operation.get("parameters", ())]
        return "<h3>Parameters</h3>" + _table(("name", "in", "type", ""), rows) if rows else ""

    def parameter(self, parameter: Mapping[str, Any]) -> tuple[str, ...]:
        schema = parameter.get("schema", {})
        about = _text(parameter.get("description", ""))
        examples = [example["value"] for example in parameter.get("examples", {}).values() if "value" in example]
        if examples:
            about += f'<p class="soft">for example {_codes(examples)}</p>'
        name = f"<code>{escape(parameter['name'])}</code>{_needed(parameter.get('required', False))}"
        return name, escape(parameter["in"]), self.type(schema) + self.limits(schema), about

    def request_body(self, body: Mapping[str, Any]) -> str:
        body = self.followed(body)
        required = "" if body.get("required") else ' <span class="soft">optional</span>'
        parts = [f"<h3>Body{required}</h3>{_text(body.get('description', ''))}"]
        shown: list[Any] = []
        for kind, media in body.get("content", {}).items():
            schema = media.get("schema", {})
            parts.append(f"<p><code>{escape(kind)}</code> {self.type(schema)}{self.limits(schema)}</p>")
            if schema not in shown:
                shown.append(schema)
                parts += [self.members(schema), self.example(kind, media)]
        return "".join(parts)

    def example(self, kind: str, media: Mapping[str, Any]) -> str:
        """What a body may look like: what was declared, or something made of the schema."""
        if not kind.endswith("json"):
            return ""
        declared = [example["value"] for example in media.get("examples", {}).values() if "value" in example]
        value = declared[0] if declared else self.sample(media.get("schema", {}), 0)
        return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"

    def sample(self, schema: Mapping[str, Any], depth: int) -> Any:
        for given in ("examples", "enum"):
            if schema.get(given):
                return schema[given][0]
        for given in ("const", "default"):
            if given in schema:
                return schema[given]
        if depth > MAX_DEPTH:
            return None
        if "$ref" in schema:
            return self.sample(self.followed(schema), depth + 1)
        options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if options:
            return self.sample(options[0], depth + 1)
        if "properties" in schema:
            return {name: self.sample(member, depth + 1) for name, member in schema["properties"].items()}
        return _plain_sample(schema)

    def responses(self, responses: Mapping[str, Any]) -> str:
        rows = []
        for status, response in responses.items():
            response = self.followed(response)
            content = "<br>".join(
                f"<code>{escape(kind)}</code> {self.type(media['schema']) if 'schema' in media else ''}"
                for kind, media in response.get("content", {}).items()
            )
            rows.append((f"<code>{escape(status)}</code>", _text(response.get("description", "")), content))
        return "<h3>Responses</h3>" + _table(("status", "", "content"), rows)

    # Schemas

    def schemas(self) -> str:
        parts = []
        for name, schema in self.components.get("schemas", {}).items():
            parts.append(
                f"<details><summary><code>{escape(name)}</code></summary>"
                f'<div class="body" id="{_anchor("schema", name)}">{_text(schema.get("description", ""))}'
                f"<p>{self.type(schema)}{self.limits(schema)}</p>{self.members(schema)}</div></details>"
            )
        return f"<h2>Schemas</h2>{''.join(parts)}" if parts else ""

    def members(self, schema: Mapping[str, Any]) -> str:
        """The table of an object's members."""
        required = schema.get("required", ())
        rows = [
            (
                f"<code>{escape(name)}</code>{_needed(name in required)}",
                self.type(member) + self.limits(member),
                _text(member.get("description", "")),
            )
            for name, member in schema.get("properties", {}).items()
        ]
        return _table(("member", "type", ""), rows) if rows else ""

    def type(self, schema: Any, depth: int = 0) -> str:
        """A type in words, with links to the schemas that it names."""
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            return "anything"
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return f'<a href="#{_anchor("schema", name)}">{escape(name)}</a>'
        for keyword, word in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
            if keyword in schema:
                return word.join(self.type(option, depth + 1) for option in schema[keyword])
        if "const" in schema:
            return _codes([schema["const"]])
        if "enum" in schema:
            return " or ".join(_codes([value]) for value in schema["enum"])
        kind = schema.get("type", "anything")
        if kind == "array":
            inner = self.type(schema["items"], depth + 1) if isinstance(schema.get("items"), Mapping) else "anything"
            return f"list of {inner}"
        if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            return f"object of {self.type(schema['additionalProperties'], depth + 1)}"
        text = escape(" or ".join(kind) if isinstance(kind, list) else str(kind))
        extra = (
            schema.get("format") or schema.get("contentEncoding") or (schema.get("title") if kind == "string" else "")
        )
        return f'{text} <span class="soft">({escape(str(extra))})</span>' if extra else text

    def limits(self, schema: Mapping[str, Any]) -> str:
        """What restricts a type, and its default."""
        told = [text.format(_codes([schema[name]])) for name, text in LIMITS.items() if name in schema]
        # Of text of a known kind, the pattern says nothing new to people.
        if schema.keys() & {"format", "contentEncoding", "title"}:
            told = [text for text in told if not text.startswith("matches")]
        if "default" in schema:
            told.append(f"by default {_codes([schema['default']])}")
        return f' <span class="limits">{", ".join(told)}</span>' if told else ""

    # Security

    def security(self) -> str:
        rows = []
        for name, scheme in self.components.get("securitySchemes", {}).items():
            scheme = self.followed(scheme)
            words = [scheme.get(key, "") for key in ("type", "scheme", "bearerFormat", "in", "name")]
            about = _text(scheme.get("description", ""))
            rows.append((f"<code>{escape(name)}</code>", escape(" ".join(str(word) for word in words if word)), about))
        return "<h2>Security</h2>" + _table(("scheme", "kind", ""), rows) if rows else ""

    def required_security(self, operation: Mapping[str, Any]) -> str:
        wanted = operation.get("security", self.document.get("security", ()))
        options = [
            " and ".join(_scheme(name, scopes) for name, scopes in option.items()) or "nobody" for option in wanted
        ]
        return f'<p class="soft">Identifies the caller by {" or ".join(options)}</p>' if options else ""

    def followed(self, part: Any) -> Mapping[str, Any]:
        """A part of the document, or the component that it refers to."""
        found: Any = part
        for _ in range(MAX_DEPTH):
            if "$ref" not in found:
                break
            kind, _, name = found["$ref"].removeprefix("#/components/").partition("/")
            found = self.components.get(kind, {}).get(name, {})
        made: Mapping[str, Any] = found
        return made


def _scheme(name: str, scopes: list[str]) -> str:
    return f"<code>{escape(name)}</code>" + (f" ({escape(', '.join(scopes))})" if scopes else "")


def _plain_sample(schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("exclusiveMinimum", 0) + (1 if "exclusiveMinimum" in schema else 0))
    formats = {
        "date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z", "time": "12:00:00Z", "duration": "PT1H",
        "uuid": "00000000-0000-4000-8000-000000000000", "decimal": "1.00",
    }  # fmt: skip
    samples: dict[Any, Any] = {
        "string": formats.get(schema.get("format", ""), "text"),
        "boolean": True,
        "array": [],
        "object": {},
    }
    return samples.get(kind)


def _text(text: str) -> str:
    return f'<p class="text">{_words(text)}</p>' if text else ""


def _words(text: str) -> str:
    # Docstrings write code between backticks; anything else they hold is shown as it is.
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _needed(required: bool) -> str:
    return ' <span class="soft">required</span>' if required else ""


def _codes(values: list[Any]) -> str:
    shown = (value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False) for value in values)
    return ", ".join(f"<code>{escape(text)}</code>" for text in shown)


def _anchor(*parts: str) -> str:
    """A fragment identifier, of letters, digits and hyphens alone; others are written as their numbers."""
    return "-".join("".join(_plain(part)) for part in parts)


def _plain(text: str) -> Iterator[str]:
    for character in text:
        yield character if character.isascii() and character.isalnum() else f"_{ord(character):x}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
