"""`rrm watch`: the sweeps of a storage on a page that goes on by itself. Read-only, on loopback."""

import argparse
import asyncio
import ipaddress
import platform
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from aiohttp import web

from launch.local import JobError
from launch.paths import folder_path
from results.page_maker import ANSWER_SECONDS
from results.patience import impatiently
from results.report import page, script, style, vega
from results.trial_files import DamagedFileError
from results.watch import WatchedStorage, WatchedSweep
from tune.plan import ALL_DONE
from tune.signals import ENDING, handled

PORT = 8266  # beside Ray's dashboard
_HEADERS = {
    # Vega compiles its expressions; all else is refused, other hosts above all.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_arguments(watch: argparse.ArgumentParser) -> None:
    """Add the arguments of `rrm watch` to its parser."""
    watch.add_argument(
        "storage", metavar="STORAGE", nargs="?", type=folder_path, default="runs", help="a folder or s3://bucket/prefix"
    )
    watch.add_argument("--port", type=_port, default=PORT, help=f"default {PORT}; 0 for any that is free")
    said = "default 127.0.0.1; with another, whoever has the link, which then holds a token, can read all sweeps there"
    watch.add_argument("--host", default="127.0.0.1", help=said)
    watch.set_defaults(command=_watch)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give 0 to 65535")
    return int(text)


def _watch(arguments: argparse.Namespace) -> int:
    storage = arguments.storage
    if isinstance(storage, Path) and not storage.is_dir():
        raise JobError(f"{storage}: no such folder; give the storage of a sweep, or run one first")
    try:
        ended = handled(ENDING, signal.default_int_handler)
        with closing(WatchedStorage(storage)) as watched, ended, impatiently(ANSWER_SECONDS):
            asyncio.run(_serve(watched, arguments.host, arguments.port))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        raise JobError(
            f"--port {arguments.port} of {arguments.host}: {error.strerror or error}; give another"
        ) from error
    return ALL_DONE


async def _serve(storage: WatchedStorage, host: str, port: int) -> None:
    token = "" if _is_loopback(host) else f"/{secrets.token_urlsafe(24)}"
    runner = web.AppRunner(application(storage, host, token), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else platform.node() if host == "0.0.0.0" else host
        print(f"Watching {storage.storage}: http://{shown}:{bound}{token}/ (Ctrl-C ends it)", flush=True)
        await asyncio.Event().wait()
    finally:
        storage.close()  # a page that is being made is waited for by nobody
        await runner.cleanup()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def application(storage: WatchedStorage, host: str = "127.0.0.1", token: str = "") -> web.Application:
    """The server of a storage's page. Its paths begin with `token`; without one it answers to loopback names only."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        # A page of another host whose name leads here must not read it through the user's browser.
        if not token and not _is_loopback(request.url.host or ""):
            raise web.HTTPForbidden(text="rrm watch answers to 127.0.0.1 and localhost only")
        try:
            response = await handler(request)
        except DamagedFileError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from error
        except OSError as error:
            raise web.HTTPServiceUnavailable(text=f"{storage.storage}: {error.strerror or error}") from error
        response.headers.update(_HEADERS)
        if isinstance(response, web.Response):
            response.enable_compression()
        return response

    async def sweep_of(request: web.Request) -> WatchedSweep:
        # Only what the storage lists is opened: no path comes from a request.
        found = (await asyncio.to_thread(storage.sweeps)).get(request.match_info["sweep"])
        if found is None:
            raise web.HTTPNotFound(text=f"{request.match_info['sweep']}: no such sweep in {storage.storage}")
        return found

    async def overview(request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(storage.overview))

    async def progress(request: web.Request) -> web.Response:
        sweep = await sweep_of(request)
        told, made = await asyncio.gather(asyncio.to_thread(sweep.progress), sweep.page())
        return web.json_response(told | {"now": time.time(), "version": made.version, "problem": made.error})

    async def whole(request: web.Request) -> web.Response:
        made = await (await sweep_of(request)).page()
        if not made.version:
            raise web.HTTPServiceUnavailable(text=made.error)
        return web.Response(body=made.json, content_type="application/json")

    async def curve(request: web.Request) -> web.Response:
        sweep = await sweep_of(request)
        try:
            return web.json_response(await asyncio.to_thread(sweep.curve, request.match_info["trial"]))
        except KeyError:
            raise web.HTTPNotFound(text="no such trial") from None

    async def csv(request: web.Request) -> web.Response:
        sweep = await sweep_of(request)
        try:
            text = await sweep.csv(request.match_info["table"])
        except KeyError:
            raise web.HTTPNotFound(text="no such table") from None
        return web.Response(text=text, content_type="text/csv")

    def file(text: Callable[[], str], kind: str) -> Handler:
        async def give(request: web.Request) -> web.Response:
            return web.Response(text=await asyncio.to_thread(text), content_type=kind)

        return give

    application = web.Application(middlewares=[guard])
    application.router.add_routes(
        [
            web.get(f"{token}/", file(lambda: page("rrm watch"), "text/html")),
            web.get(f"{token}/assets/style.css", file(style, "text/css")),
            web.get(f"{token}/assets/page.js", file(script, "text/javascript")),
            web.get(f"{token}/assets/vega.js", file(vega, "text/javascript")),
            web.get(f"{token}/api/sweeps", overview),
            web.get(f"{token}/api/sweeps/{{sweep}}", whole),
            web.get(f"{token}/api/sweeps/{{sweep}}/progress", progress),
            web.get(f"{token}/api/sweeps/{{sweep}}/trials/{{trial}}", curve),
            web.get(f"{token}/api/sweeps/{{sweep}}/tables/{{table}}.csv", csv),
        ]
    )
    return application
