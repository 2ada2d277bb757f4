"""The report in a real browser: every control works, nothing is said on the console, and no request leaves the page."""

import shutil
from pathlib import Path

import pytest

from bench.report import page
from tests.report import fake_page, planted_curves

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

ROOT = Path(__file__).resolve().parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: install the system's package chromium"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page of two comparisons, one measurement, scaling curves, and verdicts."""
    place = tmp_path_factory.mktemp("report")
    folders = [
        fake_page.write(place / "cpu-2core" / "nvs-tiny"),
        fake_page.write(
            place / "cpu-2core" / "trouble",
            pictures=False,
            statuses={("efficient-lvsm.fill", 1): "diverged"},
            comparison={"name": fake_page.HOSTILE},
        ),
        ROOT / "results" / "cpu-2core" / "efficiency-tracking-tiny",
        planted_curves.write_costs(
            place / "cpu-2core" / "scaling", {"linear": lambda x: 3 * x, "square": lambda x: x**2}
        ),
    ]
    verdicts = [fake_page.verdict(number, folders=("cpu-2core/nvs-tiny",)) for number in range(6)]
    return page.write(folders, place / "report.html", verdicts)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, report):
    """Opens a part of the report; at the end no error may have been seen, and nothing asked for but the file itself."""
    seen, contexts = [], []

    def opened(part="overview", size="desktop", theme="light", **options):
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce", **options
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: seen.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: seen.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on(
            "request",
            lambda request: (
                request.url.startswith((report.as_uri(), "data:")) or seen.append(f"request: {request.url[:80]}")
            ),
        )
        tab.goto(f"{report.as_uri()}#{part}")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert seen == []


def column(tab, table, number):
    return [
        cell.strip() for cell in tab.locator(f"{table} tbody:first-of-type tr > :nth-child({number})").all_inner_texts()
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(open_page, size, theme):
    tab = open_page("overview", size, theme)
    for part in ("overview", "nvs-tiny", "trouble", "efficiency-tracking-tiny", "scaling", "reading", "all"):
        tab.evaluate(f"location.hash = '{part}'")
        tab.wait_for_function(f"document.querySelector('nav a[aria-current]').hash === '#{part}'")
        assert tab.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0], part
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 251, 250)"
    assert light == (theme == "light")


def test_one_part_is_shown_at_a_time_and_the_address_says_which(open_page):
    tab = open_page()
    assert tab.locator(".view:visible").count() == 1
    tab.locator("nav a", has_text="nvs (tiny)").first.click()
    assert tab.locator(".view:visible").get_attribute("id") == "nvs-tiny"
    assert tab.locator("nav a[aria-current]").inner_text() == "nvs (tiny)"
    assert tab.title() == "nvs (tiny) · Isochron"
    tab.go_back()
    assert tab.locator("#overview").is_visible()
    tab.goto(f"{tab.url.partition('#')[0]}#all")
    assert tab.locator(".view:visible").count() == tab.locator(".view").count()


def test_filters_by_task_and_by_verdict(open_page):
    tab = open_page()
    tab.select_option("#by-status", "reproduced")
    assert tab.locator(".claims > li:visible").count() == 2
    tab.select_option("#by-task", "vos")
    assert tab.locator(".claims > li:visible").count() == 1
    assert tab.locator(".card[data-task=nvs]:visible").count() == 0
    assert tab.locator("#filtered").inner_text().endswith("shown")
    tab.select_option("#by-task", "")
    tab.select_option("#by-status", "")
    assert tab.locator(".claims > li:visible").count() == 6


def test_a_verdict_opens_and_leads_to_its_results(open_page):
    tab = open_page()
    claim = tab.locator(".claims > li", has_text="claim number 2 of a paper")
    claim.locator("summary").click()
    assert claim.locator("code").inner_text() == "isochron run nvs"
    claim.locator("a").click()
    assert tab.locator("#nvs-tiny").is_visible()


def test_tables_sort_by_mouse_and_keyboard(open_page):
    tab = open_page("nvs-tiny")
    table = "[aria-labelledby=nvs-tiny-table-1] table"
    heading = tab.locator(f"{table} thead th").nth(2)
    before, learns_nothing = column(tab, table, 3), tab.locator(f"{table} tbody.apart tr").all_inner_texts()
    bold = tab.locator(f"{table} tbody:first-of-type b").all_inner_texts()
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    numbers = [float(text.split(" ")[0]) for text in column(tab, table, 3)]
    assert numbers == sorted(numbers, reverse=True)
    heading.locator("button").focus()
    tab.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(text.split(" ")[0]) for text in column(tab, table, 3)] == numbers[::-1]
    assert sorted(column(tab, table, 3)) == sorted(before)
    assert sorted(tab.locator(f"{table} tbody:first-of-type b").all_inner_texts()) == sorted(bold)
    assert tab.locator(f"{table} tbody.apart tr").count() == len(learns_nothing)
    tab.locator(f"{table} thead button").first.click()
    assert heading.get_attribute("aria-sort") == "none"
    assert column(tab, table, 1) == sorted(column(tab, table, 1))


def test_sorting_knows_units_and_leaves_dashes_last(open_page):
    tab = open_page("nvs-tiny")
    order = tab.evaluate(
        """() => {
          const cells = [...document.querySelectorAll('[aria-labelledby=nvs-tiny-table-1] tbody:first-of-type td:nth-child(3)')];
          ['3 MiB', '–', '1.5 GiB', '20 KiB'].forEach((text, index) => { cells[index].textContent = text; });
          document.querySelectorAll('[aria-labelledby=nvs-tiny-table-1] thead button')[2].click();
          return [...document.querySelectorAll('[aria-labelledby=nvs-tiny-table-1] tbody:first-of-type td:nth-child(3)')].map((cell) => cell.textContent);
        }"""
    )
    assert order == ["1.5 GiB", "3 MiB", "20 KiB", "–"]


def test_the_four_views_switch(open_page):
    tab = open_page("nvs-tiny")
    buttons = tab.locator("#nvs-tiny .switch button")
    assert buttons.all_inner_texts() == ["equal time", "equal steps", "equal samples", "equal FLOPs"]
    for number, view in enumerate(("time", "steps", "samples", "flops")):
        buttons.nth(number).click()
        assert tab.locator("#nvs-tiny .chart[data-view]:visible").get_attribute("data-view") == view
        assert buttons.nth(number).get_attribute("aria-pressed") == "true"
        assert tab.locator("#nvs-tiny .switch [aria-pressed=true]").count() == 1


def test_points_and_bars_tell_their_values(open_page):
    tab = open_page("nvs-tiny")
    point = tab.locator("#nvs-tiny .chart:visible .point").last
    point.hover()
    mean, low, high, at = point.get_attribute("data-at").split("|")
    told = tab.locator("#tip").inner_text()
    assert told.splitlines()[0] == point.locator("..").get_attribute("data-title")
    assert f"PSNR (dB) {mean} (seeds {low} to {high})" in told
    assert f"at {at}, charged time" in told
    bar = tab.locator("#nvs-tiny .bar rect").nth(3)
    bar.hover()
    assert "backward" in tab.locator("#tip").inner_text()
    tab.keyboard.press("Escape")
    assert not tab.locator("#tip").is_visible()


def test_quantities_of_a_scaling_curve_switch_and_keys_go_from_point_to_point(open_page):
    tab = open_page("scaling")
    buttons = tab.locator("#scaling .switch button")
    assert buttons.all_inner_texts() == ["latency", "GFLOPs"]
    buttons.nth(1).click()
    drawing = tab.locator("#scaling .chart:visible svg")
    assert drawing.count() == 1
    assert drawing.get_attribute("aria-label").startswith("GFLOPs")
    drawing.focus()
    tips = []
    for _ in range(6):
        tab.keyboard.press("ArrowRight")
        tips.append(tab.locator("#tip").inner_text())
    assert len(set(tips)) == 6
    assert "not fitted; the law says" in tips[-1]
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#tip").inner_text() == tips[-2]
    tab.keyboard.press("Tab")
    assert not tab.locator("#tip").is_visible()


def test_every_cell_of_every_table_leads_to_its_record(open_page):
    tab = open_page("all")
    tab.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    untold = tab.evaluate(
        """() => {
          const panel = document.querySelector('#source');
          const untold = [];
          for (const cell of document.querySelectorAll('table tbody td')) {
            panel.hidden = true;
            cell.click();
            const told = panel.hidden ? '' : panel.textContent;
            if (!told.includes(cell.textContent.trim()) || !/json|bench.published/.test(told) || !/seed|no run|nothing is trained/.test(told)) untold.push(cell.closest('.view').id + ': ' + cell.textContent);
          }
          return untold;
        }"""
    )
    assert untold == []


@pytest.mark.parametrize("size", SIZES)
def test_every_control_can_be_used_and_says_nothing_on_the_console(open_page, size):
    tab = open_page("all", size)
    used = tab.evaluate(
        """() => {
          const used = {};
          const count = (name) => { used[name] = (used[name] || 0) + 1; };
          for (const details of document.querySelectorAll('details')) { details.querySelector('summary').click(); count('details'); }
          for (const button of [...document.querySelectorAll('button')]) { button.click(); count(button.closest('th') ? 'heading' : 'button'); }
          for (const select of [...document.querySelectorAll('select')])
            for (const option of [...select.options]) { select.value = option.value; select.dispatchEvent(new Event('change')); count('option'); }
          for (const range of document.querySelectorAll('input[type=range]'))
            for (const value of [range.min, range.max]) { range.value = value; range.dispatchEvent(new Event('input')); count('range'); }
          for (const point of document.querySelectorAll('[data-tip], [data-at], [data-spent], [data-sample]')) {
            point.dispatchEvent(new PointerEvent('pointerover', { bubbles: true }));
            point.dispatchEvent(new MouseEvent('click', { bubbles: true }));
            count('point');
          }
          for (const entry of document.querySelectorAll('.legend li'))
            for (const kind of ['pointerenter', 'pointerleave']) { entry.dispatchEvent(new PointerEvent(kind)); count('legend'); }
          return used;
        }"""
    )
    assert all(used[kind] for kind in ("details", "heading", "button", "option", "range", "point", "legend"))
    for link in tab.locator("a").all():
        link.evaluate("link => link.click()")
    tab.goto(f"{tab.url.partition('#')[0]}#all")
    shown = tab.evaluate(
        "[...document.querySelectorAll('thead th')].every((th) => th.querySelector('button') || th.closest('.samples'))"
    )
    assert shown, "each table sorts by each of its headings; samples have a chooser of their own"
    assert tab.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]


def test_the_slider_moves_between_two_columns(open_page):
    tab = open_page("nvs-tiny")
    stage, slide = tab.locator("#nvs-tiny .stage"), tab.locator("#nvs-tiny input[type=range]")
    tab.wait_for_function("document.querySelector('#nvs-tiny .stage').getAttribute('aria-label')")
    assert stage.locator(".side.left").inner_text() == "ground truth"
    selects = tab.locator("#nvs-tiny .slider select")
    selects.nth(2).select_option(label="efficient-lvsm.knee")
    selects.nth(0).select_option(label="scene-0001/target-1")
    assert (
        stage.get_attribute("aria-label")
        == "scene-0001/target-1: ground truth on the left, efficient-lvsm.knee on the right"
    )
    slide.focus()
    tab.keyboard.press("Home")
    assert (
        tab.locator("#nvs-tiny .stage canvas").nth(1).evaluate("canvas => canvas.style.clipPath")
        == "inset(0px 100% 0px 0px)"
    )
    width = stage.bounding_box()["width"]
    stage.click(position={"x": 0.75 * width, "y": 20})
    assert slide.input_value() == "75"


def test_the_slider_shows_the_tiles_that_it_names(open_page):
    tab = open_page("nvs-tiny")
    selects = tab.locator("#nvs-tiny .slider select")
    selects.nth(1).select_option(index=4)
    selects.nth(0).select_option(index=2)
    shown = (
        tab.locator("#nvs-tiny .stage canvas")
        .nth(1)
        .evaluate("canvas => [...canvas.getContext('2d').getImageData(40, 50, 1, 1).data].slice(0, 3)")
    )
    assert shown == fake_page.tile(2, 4, 128, 2)[100, 80].tolist()


def test_the_drill_down_sorts_by_disagreement_and_shows_pictures(open_page):
    tab = open_page("nvs-tiny")
    box = tab.locator("#nvs-tiny .samples")
    gaps = [abs(float(text)) for text in box.locator("tbody td:nth-child(4)").all_inner_texts()]
    assert len(gaps) == 12
    assert gaps == sorted(gaps, reverse=True)
    box.locator("button", has_text="Show all 16").click()
    assert box.locator("tbody tr").count() == 16
    assert box.locator("svg circle").count() == 16
    selects = box.locator("select")
    selects.nth(1).select_option(label="depth warp (learns nothing)")
    selects.nth(2).select_option(label="SSIM")
    selects.nth(3).select_option(label="A − B, largest first")
    gaps = [float(text) for text in box.locator("tbody td:nth-child(4)").all_inner_texts()]
    assert gaps == sorted(gaps, reverse=True)
    for row in box.locator("tbody tr").all()[:3]:
        left, right, gap = (float(cell) for cell in row.locator("td").all_inner_texts())
        assert abs(left - right - gap) < 2e-4
    selects.nth(3).select_option(label="name")
    box.locator("tbody button", has_text="scene-0001/target-0").click()
    assert box.locator(".strip canvas").count() == 4  # two inputs, the truth, arm A
    assert box.locator("tbody tr.marked").inner_text().startswith("scene-0001/target-0")
    box.locator("button", has_text="Compare in the slider").click()
    assert tab.locator("#nvs-tiny .stage").get_attribute("aria-label").startswith("scene-0001/target-0")
    box.locator("tbody button", has_text="scene-0004/target-0").click()
    assert "not among the pictures" in box.locator(".strip").inner_text()


def test_every_number_says_where_it_comes_from(open_page):
    tab = open_page("nvs-tiny")
    cell = tab.locator("[aria-labelledby=nvs-tiny-table-1] tbody td:nth-child(3)").first
    cell.click()
    panel = tab.locator("#source")
    told = panel.inner_text()
    for part in (
        "lvsm-decoder-only",
        "PSNR (dB)",
        cell.inner_text(),
        "evals.jsonl",
        "seeds 0, 1, 2",
        "cpu-2core/nvs-tiny",
        "1.0",
    ):
        assert part in told
    tab.keyboard.press("Escape")
    assert not panel.is_visible()
    assert tab.evaluate("document.activeElement.className") == "why"
    tab.keyboard.press("Enter")
    assert panel.is_visible()
    panel.locator(".close").click()
    tab.locator("#nvs-tiny button[data-what=ledger]").click()
    assert "ledger.json" in panel.inner_text()


def test_the_theme_goes_round_and_is_kept(open_page):
    tab = open_page(theme="light")
    colours = []
    for name in ("light", "dark", "system"):
        tab.locator("#theme").click()
        assert tab.locator("#theme").inner_text() == f"Theme: {name}"
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] == colours[2] != colours[1]
    tab.locator("#theme").click()
    tab.locator("#theme").click()
    tab.reload()
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_contents_open_on_a_phone(open_page):
    tab = open_page("nvs-tiny", "phone")
    assert not tab.locator("nav").is_visible()
    tab.locator("#menu").click()
    assert tab.locator("#menu").get_attribute("aria-expanded") == "true"
    tab.locator("nav a", has_text="Overview").click()
    assert tab.locator("#overview").is_visible()
    assert not tab.locator("nav").is_visible()


def test_all_of_it_can_be_read_without_a_script(open_page):
    tab = open_page("nvs-tiny", java_script_enabled=False)
    assert tab.locator(".view:visible").count() == tab.locator(".view").count()
    assert tab.locator("#nvs-tiny .chart:visible").count() == 4
    assert tab.locator("#nvs-tiny figure.grid img").is_visible()
    assert "efficient-lvsm" in tab.locator("[aria-labelledby=nvs-tiny-table-1] table").inner_text()
    assert not tab.locator("#theme").is_visible()


def test_everything_that_can_be_used_has_a_name(open_page):
    tab = open_page("all")
    unnamed = tab.evaluate(
        """() => [...document.querySelectorAll('button, select, input, a, img, svg[role=img], canvas[role=img]')].filter((element) =>
          !(element.textContent.trim() || element.getAttribute('aria-label') || element.alt || element.closest('label'))).map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
