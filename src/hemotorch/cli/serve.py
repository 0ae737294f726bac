"""`hemotorch serve`: the app in a browser."""

from __future__ import annotations

import argparse
import ipaddress
from pathlib import Path
from typing import Any

from hemotorch.cli.options import add_command, add_max_voxels, whole_number
from hemotorch.errors import OptionError

FOLDER = "hemotorch-app"


def add_serve(group: Any) -> None:
    """Adds the command."""
    text = "See, correct and teach in a browser: scans, outlines, corrections, training."
    p = add_command(group, "serve", serve, text, "serve --watch incoming")
    text = f"folder for the app's own data, made if it is missing (default: {FOLDER})"
    p.add_argument("folder", metavar="FOLDER", nargs="?", default=FOLDER, help=text)
    p.add_argument("--port", type=port, default=8080, metavar="N", help="(default: 8080, or the next one that is free)")
    text = "address to listen on (default: 127.0.0.1, this machine only)"
    p.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    text = "another name that browsers reach it by, as behind a proxy; may be repeated"
    p.add_argument("--public-host", action="append", default=[], metavar="NAME", help=text)
    text = "folder whose scans are added and outlined, and all that come into it; may be repeated"
    p.add_argument("--watch", action="append", default=[], metavar="FOLDER", help=text)
    text = "folder of this machine that may be browsed and added in the page; may be repeated"
    p.add_argument("--allow", action="append", default=[], metavar="FOLDER", help=text)
    p.add_argument("--token", metavar="FILE", help="file of the token that signs in (default: token in FOLDER)")
    text = "file of the token that lets look only (default: read-token in FOLDER)"
    p.add_argument("--read-token", metavar="FILE", help=text)
    text = "header in which a proxy that signs people in names the user; needs --trusted-proxy"
    p.add_argument("--user-header", default="", metavar="NAME", help=text)
    text = "address of that proxy; whoever can send from it is signed in"
    p.add_argument("--trusted-proxy", default="", metavar="IP", help=text)
    text = "show names, ids and dates of patients (default: pseudonyms)"
    p.add_argument("--show-patient", action="store_true", help=text)
    text = "model that outlines new studies (default: the one that was chosen last, at first the one in the box)"
    p.add_argument("--model", default="", metavar="MODEL", help=text)
    p.add_argument("--max-upload-mb", type=megabytes, default=4096, metavar="N", help="of one file (default: 4096)")
    p.add_argument("--no-browser", action="store_true", help="only print the link")
    add_max_voxels(p)


def serve(arguments: argparse.Namespace) -> int:
    """Serves until it is stopped."""
    from hemotorch.app.run import serve as run
    from hemotorch.app.settings import READ_TOKEN, TOKEN, AppSettings, allowed_folders, open_workspace, read_token
    from hemotorch.system.events import print_lines

    if bool(arguments.user_header) != bool(arguments.trusted_proxy):
        raise OptionError("one of them alone does nothing", "--user-header, --trusted-proxy", "give both")
    if arguments.trusted_proxy:
        try:
            ipaddress.ip_address(arguments.trusted_proxy)
        except ValueError:
            raise OptionError("is no address", "--trusted-proxy", "give it in numbers, such as 127.0.0.1") from None
    watched = allowed_folders(arguments.watch)
    allowed = allowed_folders([*arguments.allow, *arguments.watch])
    folder = open_workspace(Path(arguments.folder))
    settings = AppSettings(
        folder=folder,
        token=read_token(Path(arguments.token or folder / TOKEN)),
        read_token=read_token(Path(arguments.read_token or folder / READ_TOKEN)),
        host=arguments.host,
        port=arguments.port,
        user_header=arguments.user_header,
        trusted_proxy=arguments.trusted_proxy,
        public_hosts=tuple(arguments.public_host),
        folders=allowed,
        watched=watched,
        show_patient=arguments.show_patient,
        model=arguments.model,
        max_file_mb=arguments.max_upload_mb,
    )
    run(settings, print_lines, not arguments.no_browser)
    return 0


def port(text: str) -> int:
    """A TCP port; 0 for any."""
    return whole_number(text, 0, 65535)


def megabytes(text: str) -> int:
    """Of an upload."""
    return whole_number(text, 1, 10**9)
