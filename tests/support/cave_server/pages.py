# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pages that people see in a browser."""

from __future__ import annotations

from html import escape
from typing import Any

from .world import Key, Person, Terms

STYLE = (
    "body{font-family:sans-serif;max-width:40em;margin:3em auto;padding:0 1em;color:#222}"
    "li{border:1px solid #ddd;padding:.8em;list-style:none}ul{padding:0}"
    "code{user-select:all}button{padding:.5em 1em}input{padding:.5em;width:60%}"
)


def page(title: str, body: str) -> str:
    """Return an HTML page."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def error(title: str, text: str) -> str:
    """Return the page that Flask shows for a status."""
    heading = title.partition(" ")[2]
    return f"<!doctype html>\n<html lang=en>\n<title>{title}</title>\n<h1>{heading}</h1>\n<p>{text}</p>\n"


NGINX_REASONS = {413: "Request Entity Too Large", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
"""Where nginx says it in its own words."""


def gateway(title: str) -> str:
    """Return the page of a front end (nginx) that answers itself, as it does when no service is there."""
    lines = ["<html>", f"<head><title>{title}</title></head>", "<body>", f"<center><h1>{title}</h1></center>"]
    lines.append("<hr><center>nginx</center>")
    return "\r\n".join([*lines, "</body>", "</html>", ""])


def login(people: list[Person]) -> str:
    """Return the login page. The real one is Google's; this one lets anybody be anyone."""
    buttons = "\n".join(
        f'<p><button name="email" value="{escape(person.email)}">Continue as {escape(person.name)}</button></p>'
        for person in people
    )
    return page("Sign in", f'<form method="post">\n{buttons or "<p>Nobody has an account here.</p>"}\n</form>')


def tokens(person: Person, keys: list[Key]) -> str:
    """Return the page that lists a person's tokens, makes and deletes them."""
    items = "\n".join(_token(key.as_dict()) for key in keys) or "<li>You have no tokens</li>"
    return page(
        "Tokens",
        f"""<p id="person">{escape(person.name)} - {escape(person.email)}</p>
<form id="createTokenContainer">
<label for="description">Description</label>
<input id="description" required maxlength="120" placeholder="what is it used for?">
<button id="createToken">Create new token</button>
</form>
<ul id="tokensList">
{items}
</ul>
<script>
const send = async (path, method, body) => {{
  const init = {{method, credentials: "same-origin"}};
  if (body) {{ init.headers = {{"Content-Type": "application/json"}}; init.body = JSON.stringify(body); }}
  const answer = await fetch("../api/v1/user/token" + path, init);
  if (answer.status === 200) location.reload(); else alert("status " + answer.status);
}};
document.getElementById("createTokenContainer").addEventListener("submit", (event) => {{
  event.preventDefault();
  send("", "POST", {{description: document.getElementById("description").value}});
}});
for (const button of document.querySelectorAll(".deleteToken")) {{
  button.addEventListener("click", () => {{
    if (confirm("Are you sure you want to delete this token?")) send("/" + button.dataset.tokenId, "DELETE");
  }});
}}
</script>""",
    )


def _token(key: dict[str, Any]) -> str:
    used = f"last used: {key['last_used']}" if key["last_used"] else "unused"
    return (
        f"<li><div><span>{escape(key['description'] or 'unknown')}</span></div>"
        f"<div><span>token: <code>{escape(key['token'])}</code></span></div>"
        f"<div>created: {key['created']} - {used}</div>"
        f'<button class="deleteToken" data-token-id="{key["id"]}">Delete</button></li>'
    )


def terms(asked: Terms) -> str:
    """Return the form for accepting terms of service."""
    return page(
        f"{asked.name}'s Terms of Service",
        f'<p>{escape(asked.text)}</p>\n<form method="post"><button id="accept">I accept</button></form>',
    )


def message(title: str, text: str) -> str:
    """Return a page with a message."""
    return page(title, f"<p>{escape(text)}</p>")
