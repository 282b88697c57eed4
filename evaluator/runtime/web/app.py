"""HTTP: the page, the API, the metrics, and whether the process is well (docs/contracts.md, 4).

Reading only. Whatever is slow to write out, 10,000 series for one, is written in a thread from a snapshot, so
that a scrape never holds up a commit.
"""

from __future__ import annotations

import asyncio
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

import jinja2
import msgspec
import numpy as np
import orjson
from aiohttp import web

from evaluator import __version__
from evaluator.core.event import SECOND
from evaluator.runtime.exposition import content_type_of
from evaluator.runtime.intake import OVER_S
from evaluator.runtime.metrics import exposition
from evaluator.runtime.web import page
from evaluator.runtime.web.reused import Reused
from evaluator.runtime.web.work import SHOWN, api, lines, replicas
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from fractions import Fraction

    from evaluator.runtime.fleet import Work
    from evaluator.runtime.metrics import Metrics
    from evaluator.runtime.status import Alert
    from evaluator.runtime.view import Look, SeriesView, SourceView, View

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REFRESH_S = 5
"""Seconds between two looks of a browser; windows take a minute and more."""

EVENTS_SHOWN = 20
LONGEST_QUERY = 200
COMPRESS_FROM = 4096
"""Bytes below which compression saves less than it costs."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Server": "evaluator",
}

_ERROR_TYPES = {404: "not_found", 503: "unavailable"}
"""Prometheus' names; everything else that a client can cause is `bad_data`."""


class Health(Protocol):
    """Whether the process should be left alone, and why."""

    def healthy(self) -> tuple[bool, str]:
        """Whether it is alive: if not, a restart is what helps."""

    def ready(self) -> tuple[bool, str]:
        """Whether its share of the work is being done."""


class Shares(Protocol):
    """Who works on what. `name` is this process."""

    @property
    def name(self) -> str:
        """What the brokers call this process."""

    def work(self) -> Sequence[Work]:
        """Every partition of which somebody is known to work on it."""


def make_app(
    view: View, metrics: Metrics, health: Health, shares: Shares, *, refresh_s: int = REFRESH_S
) -> web.Application:
    """The application, ready for a runner."""
    site = _Site(view, metrics, health, shares, refresh_s)
    app = web.Application(middlewares=[_errors_of_the_api])
    app.on_response_prepare.append(_secure)
    app.add_routes([
        web.get("/", site.index),
        web.get("/alerts/{fingerprint}", site.alert),
        web.get("/static/page.css", site.style),
        web.get("/metrics", site.scrape),
        web.get("/-/healthy", site.healthy),
        web.get("/healthz", site.healthy),
        web.get("/-/ready", site.ready),
        web.get("/readyz", site.ready),
        web.get("/api/v1/alerts", site.api_alerts),
        web.get("/api/v1/status", site.api_status),
    ])  # fmt: skip
    return app


async def _secure(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def _errors_of_the_api(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A program that asks the API can read what is wrong, too."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        if not request.path.startswith("/api/"):
            raise
        body = {"status": "error", "errorType": _ERROR_TYPES.get(error.status, "bad_data"), "error": error.reason}
        return _json(body, error.status)


class _Site:
    def __init__(self, view: View, metrics: Metrics, health: Health, shares: Shares, refresh_s: int) -> None:
        self._view, self._metrics, self._health, self._refresh_s = view, metrics, health, refresh_s
        self._shares = shares
        self._scrapes: Reused[tuple[bytes, str]] = Reused()
        self._style = (files("evaluator.runtime.web") / "static" / "page.css").read_bytes()
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("evaluator.runtime.web"), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.globals.update(version=__version__, config=view.rules.hash, tick=page.TICK)

    # -- pages ------------------------------------------------------------------------------------------

    async def index(self, request: web.Request) -> web.Response:
        """Everything at a glance."""
        self._metrics.refresh()
        query = request.query.get("q", "")[:LONGEST_QUERY].strip()
        look, sources, alerts = self._view.look(), self._view.sources(), self._view.transitions()[:EVENTS_SHOWN]
        paused, shared = "pause" in request.query, self._shared()
        return await self._html(200, lambda: self._index(look, sources, alerts, query, shared, paused=paused))

    def _shared(self) -> dict[str, Any]:
        """Who works on what, in words; made in the event loop, where tasks do not change meanwhile."""
        work, (restores, seconds) = self._shares.work(), self._metrics.restores
        return {
            "replicas": replicas(work, self._shares.name, self._view.rules.hash),
            "work": lines(work, self._shares.name, self._view.now()),
            "more_work": max(0, len(work) - SHOWN),
            "restores": restores,
            "restore_s": f"{seconds / restores:.2f}" if restores else "",
        }

    def _index(
        self, look: Look, sources: Sequence[SourceView], alerts: Sequence[Alert], query: str,
        shared: Mapping[str, Any], *, paused: bool,
    ) -> str:  # fmt: skip
        now, series = look.now, look.series()
        found = page.matching(series, query)
        rows = [page.row(one, self._view.rules, now) for one in found[: page.ROWS_SHOWN]]
        return self._templates.get_template("index.html").render(
            now=page.stamp(now), counts=page.counts(series), total=len(series), found=len(found), shown=len(rows),
            sections=page.sections(rows), events=[page.event(alert, now) for alert in alerts], query=query,
            sources=[page.source_line(s, self._view.rules, self._view.max_rejected, now) for s in sources],
            over=page.ago(OVER_S * SECOND), paused=paused,
            refresh_s=0 if paused else self._refresh_s, unreadable=self._view.unreadable, **shared,
        )  # fmt: skip

    async def alert(self, request: web.Request) -> web.Response:
        """One alert of one series, window by window."""
        self._metrics.refresh()
        fingerprint = request.match_info["fingerprint"]
        series, alerts = self._view.find(fingerprint), self._view.transitions(fingerprint)
        if series is None and not alerts:
            return await self._html(404, lambda: self._missing(fingerprint))
        return await self._html(200, lambda: self._alert(series, alerts))

    def _missing(self, fingerprint: str) -> str:
        return self._templates.get_template("missing.html").render(fingerprint=fingerprint, refresh_s=0)

    def _alert(self, series: SeriesView | None, alerts: Sequence[Alert]) -> str:
        now = self._view.now()
        labels = dict(alerts[0].labels) if series is None else series.status.labels
        annotations = {**(alerts[0].annotations if alerts else {}), **(series.status.annotations if series else {})}
        return self._templates.get_template("alert.html").render(
            now=page.stamp(now), labels=sorted(labels.items()),
            row=None if series is None else page.row(series, self._view.rules, now),
            windows=[] if series is None else page.window_lines(series.status, now),
            annotations=[(name, text, page.link(text)) for name, text in annotations.items()],
            events=[page.event(alert, now) for alert in alerts], refresh_s=self._refresh_s,
            title=labels.get("alertname", ""),
        )  # fmt: skip

    async def style(self, _request: web.Request) -> web.Response:
        """The style sheet."""
        headers = {"Cache-Control": "max-age=3600"}
        return web.Response(body=self._style, content_type="text/css", charset="utf-8", headers=headers)

    async def _html(self, status: int, render: Callable[[], str]) -> web.Response:
        # Half of a surrogate pair in a label must not cost us the page.
        body = (await asyncio.to_thread(render)).encode("utf-8", "replace")
        return _compressed(web.Response(body=body, status=status, content_type="text/html", charset="utf-8"))

    # -- for programs -----------------------------------------------------------------------------------

    async def scrape(self, request: web.Request) -> web.Response:
        """The metrics, as text or OpenMetrics."""
        accept = request.headers.get("Accept", "")
        kind = content_type_of(accept)
        body, content_type = await self._scrapes.get(kind, lambda: partial(exposition, self._metrics.look(), accept))
        return _compressed(web.Response(body=body, headers={"Content-Type": content_type}))

    async def healthy(self, _request: web.Request) -> web.Response:
        """Whether the process is alive."""
        return _verdict(self._health.healthy())

    async def ready(self, _request: web.Request) -> web.Response:
        """Whether its share of the work is being done."""
        return _verdict(self._health.ready())

    async def api_alerts(self, _request: web.Request) -> web.Response:
        """Pending and firing alerts in the shape of Prometheus' API."""
        fired = {(a.fingerprint, a.starts_at): a.annotations for a in self._view.transitions() if a.status == "firing"}
        active = [series for series in self._view.series() if series.status.phase != "inactive"]
        alerts = [
            _active(series, fired.get((series.fingerprint, series.status.starts_at or ""), {})) for series in active
        ]
        return _json({"status": "success", "data": {"alerts": alerts}})

    async def api_status(self, request: web.Request) -> web.Response:
        """Every series as it was published, with what is known of it now."""
        self._metrics.refresh()
        look, query = self._view.look(), request.query.get("q", "")[:LONGEST_QUERY]
        head = {
            "now": rfc3339(look.now),
            "version": __version__,
            "config": self._view.rules.hash,
            "unreadable": self._view.unreadable,
            "sources": [_source(source, self._view.max_rejected) for source in self._view.sources()],
            "replica": self._shares.name,
            "restores": dict(zip(("count", "seconds"), self._metrics.restores, strict=True)),
            "tasks": [api(one) for one in self._shares.work()],
        }
        body = await asyncio.to_thread(_status_body, head, look, query)
        return _compressed(web.Response(body=body, content_type="application/json"))


def _active(series: SeriesView, fired: Mapping[str, str]) -> dict[str, Any]:
    """An alert as Prometheus shows it; `fired` are the annotations that it fired with."""
    status = series.status
    return {
        "labels": status.labels,
        "annotations": {**fired, **status.annotations},
        "state": status.phase,
        "activeAt": status.starts_at,
        "value": _value(series),
    }


def _status_body(head: Mapping[str, Any], look: Look, query: str) -> bytes:
    series = [
        {**msgspec.to_builtins(one.status), "fingerprint": one.fingerprint, "data": one.data.value}
        for one in page.matching(look.series(), query)
    ]
    return orjson.dumps({"status": "success", "data": {**head, "series": series}})


def _source(source: SourceView, limit: Fraction) -> dict[str, Any]:
    rejects = source.rejects
    return {
        "name": source.name,
        "watermark": None if source.watermark is None else rfc3339(source.watermark),
        "behindSeconds": None if source.behind is None else source.behind / 1e6,
        "blind": source.is_blind,
        "rejects": {
            "overSeconds": OVER_S,
            "rejected": rejects.rejected,
            "events": rejects.events,
            "ratio": None if rejects.ratio is None else float(rejects.ratio),
            "maxRatio": float(limit),
            "reason": rejects.reason,
            "flagged": source.is_flagged,
        },
    }


def _value(series: SeriesView) -> str:
    """What Prometheus calls the value of an alert: of the first condition that was breached, else of any."""
    window = series.status.windows[-1] if series.status.windows else None
    if window is None:
        return "NaN"
    names = [*(text.partition(" ")[0] for text in window.breached), *window.values]
    value = next((window.values[name] for name in names if window.values.get(name) is not None), None)
    return "NaN" if value is None else str(np.format_float_scientific(value, trim="-", exp_digits=2))


def _verdict(said: tuple[bool, str]) -> web.Response:
    is_well, reason = said
    return web.Response(text=f"{'OK' if is_well else 'NOT OK'}: {reason}\n", status=200 if is_well else 503)


def _json(body: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def _compressed(response: web.Response) -> web.Response:
    if response.body is not None and len(bytes(response.body)) >= COMPRESS_FROM:  # type: ignore[arg-type]  # bytes here
        response.enable_compression()
    return response
