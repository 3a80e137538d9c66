"""The web book: seconds to build, size, and seconds from pressing Draw to the picture, in a headless Chromium."""

import argparse
import functools
import http.server
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

from course_utils.site import build
from course_utils.web.export import FILES

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a red car in the city"


class Server(http.server.SimpleHTTPRequestHandler):
    """Static files; `isolated`: with the two headers that let a page have threads."""

    isolated = False

    def log_message(self, *_):
        pass

    def end_headers(self):
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


class IsolatedServer(Server):
    isolated = True


def megabytes(*paths: Path) -> float:
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def seconds_to_pictures(book: Path, handler, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds from pressing Draw to the picture: the first on a fresh page, with all that is loaded, and the second."""
    from playwright.sync_api import sync_playwright

    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    first, second = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=book)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            for seed in range(rounds):
                page = browser.new_context().new_page()  # nothing is in its cache
                page.set_default_timeout(300_000)
                page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
                page.get_by_label("Prompt", exact=True).fill(PROMPT)
                for times, number in ((first, seed), (second, seed + rounds)):
                    page.get_by_label("Seed", exact=True).fill(str(number))
                    start = time.perf_counter()
                    page.get_by_role("button", name="Draw", exact=True).click()
                    page.locator(".message", has_text="Drawn in").wait_for()
                    times.append(time.perf_counter() - start)
                    page.evaluate("document.querySelector('.message').textContent = ''")
                page.context.close()
            browser.close()
        server.shutdown()
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="fresh pages, each with two pictures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book"
        start = time.perf_counter()
        build(ROOT, book)
        print(f"| built in | {time.perf_counter() - start:.0f} s |")
        files = [path for path in book.rglob("*")]
        box = [path for path in files if "draw" in path.relative_to(book).parts]
        without = set(files) - set(box)
        print(f"| the whole book; without the box | {megabytes(*files):.0f} MB; {megabytes(*without):.0f} MB |")
        for name, file in FILES.items():
            print(f"| {name} | {megabytes(book / 'draw' / 'model' / file):.1f} MB |")
        runtime = list((book / "draw" / "onnxruntime").glob("*threaded.wasm"))
        print(f"| ONNX Runtime Web (WebAssembly) | {megabytes(*runtime):.1f} MB |")
        for name, handler in (("one thread", Server), ("as many threads as cores", IsolatedServer)):
            for order, times in zip(
                ("first", "second"), seconds_to_pictures(book, handler, options.rounds), strict=True
            ):
                print(
                    f"| {order} picture, {name} | {statistics.median(times):.2f} s "
                    f"({min(times):.2f} to {max(times):.2f}, n = {len(times)}) |"
                )


if __name__ == "__main__":
    main()
