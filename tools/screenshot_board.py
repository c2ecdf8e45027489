"""Take the README's picture of the leaderboard: ``leaderboards/index.html`` to ``docs/leaderboard.png``."""

from __future__ import annotations

from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
ARGUMENTS += ["--disable-sync", "--no-first-run"]
MARGIN = 24


@click.command()
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=ROOT / "leaderboards/index.html",
)
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), default=ROOT / "docs/leaderboard.png"
)
@click.option("--browser", default="/usr/bin/chromium", show_default=True, help="A Chromium to take it with.")
@click.option("--width", default=1400, show_default=True, help="Pixels.")
@click.option("--dark", is_flag=True, help="In the dark colours.")
def main(page: Path, picture: Path, browser: str, width: int, dark: bool) -> None:
    """Photograph the page from its top to the end of its first table."""
    from playwright.sync_api import sync_playwright

    picture.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=ARGUMENTS)
        view = chromium.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        view.goto(page.resolve().as_uri())
        box = view.locator(".scroll").first.bounding_box()
        height = box["y"] + box["height"] + MARGIN if box else 900
        view.screenshot(path=picture, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
        chromium.close()
    click.echo(f"wrote {picture}")


if __name__ == "__main__":
    main()
