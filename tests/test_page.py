"""The page in a real browser: it draws, fits, speaks two languages, and its answers are found, sorted and saved."""

import csv
import io
from pathlib import Path

import pytest
import report_run
from browser import CHROMIUM, Browser
from report_run import HOSTILE

from stages.report import main

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole run with its report written."""
    found = report_run.write(tmp_path_factory.mktemp("run"))
    main(**found)
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("no Chromium: install the package `chromium` to test the page in a browser")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


SCROLL = """(async () => {
  document.querySelector('.deeper').open = true;
  for (const plot of document.querySelectorAll('.plot')) {
    plot.scrollIntoView({behavior: 'instant'});
    for (let i = 0; i < 100 && !plot.querySelector('.main-svg'); i++) await new Promise(r => setTimeout(r, 20));
  }
})()"""
PLOTS = """[...document.querySelectorAll('.plot')].map(p => [p.dataset.panel, p.querySelectorAll('.trace').length,
  document.getElementById(p.getAttribute('aria-labelledby')).innerText])"""
# Contrast of every text with the ground behind it, by the formula of WCAG 2; the worst one that is below 4.5
CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const ground = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
    if (c[3] !== 0) return c.slice(0, 3); } return [255, 255, 255]; };
  let bad = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!e.checkVisibility() || e.closest('.plot, script, :disabled, .step:not([href])')) continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(parts(getComputedStyle(e).color).slice(0, 3)), light(ground(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
  }
  return bad.slice(0, 5);
})()"""


SET = """((control, value, event) => { control.value = value; control.dispatchEvent(new Event(event)); })
  (document.querySelector('%s'), '%s', '%s')"""


def test_page_opens_draws_and_stays_quiet(browser, options):
    browser.open(options["page"].as_uri())
    opened = browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert 0 < opened < 5000
    browser.run(SCROLL)
    plots = browser.run(PLOTS)
    assert len(plots) > 25
    assert [name for name, traces, alt in plots if not traces or len(alt) < 20] == []
    assert browser.run("window.injected") is None and browser.run("document.querySelectorAll('main img').length") == 0
    assert browser.complaints() == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_page_fits_the_screen_and_can_be_read(browser, options, width, dark):
    browser.open(options["page"].as_uri(), width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.className)"
    assert browser.run(wide) == []
    assert browser.run(CONTRAST) == []


def test_language_and_colours_switch(browser, options):
    browser.open(options["page"].as_uri())
    browser.run(SCROLL)
    title = "document.querySelector('#figure-sft-loss .xtitle').textContent"
    assert browser.run(title) == "step"
    browser.run("document.querySelector('[data-speak=zh]').click()")
    assert browser.run(title) == "步"
    assert browser.run("document.documentElement.lang + document.title") == "zh<b>sample 上的 RLHF：一次运行的结果"
    assert "SFT 有帮助吗" in browser.run("document.querySelector('.answers').innerText")
    assert "Did SFT" not in browser.run("document.querySelector('.answers').innerText")
    grid = "document.querySelector('#figure-sft-loss .gridlayer path').style.stroke"
    light = browser.run(grid)
    browser.run("document.querySelector('#theme').click()")
    assert browser.run(grid) != light
    assert browser.complaints() == []


def test_the_keyboard_reaches_every_question(browser, options):
    def press(key, **more):
        for kind in ("keyDown", "keyUp"):
            browser.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    browser.open(f"{options['page'].as_uri()}#sample-2")
    browser.run("document.querySelector('#sort').focus()")
    press("Tab", windowsVirtualKeyCode=9)  # the direction has no meaning in test order, and is passed over
    assert browser.run("document.activeElement.textContent") == "Download CSV"
    press("Tab", windowsVirtualKeyCode=9)
    assert browser.run("document.activeElement.hash") == "#sample-2"
    press("ArrowDown", windowsVirtualKeyCode=40)
    press("ArrowDown", windowsVirtualKeyCode=40)
    press("ArrowUp", windowsVirtualKeyCode=38)
    assert browser.run("document.activeElement.hash") == "#sample-3"
    press("Enter", text="\r", windowsVirtualKeyCode=13)
    opened = "document.querySelector('.detail h3').textContent === 'Question 3'"
    assert browser.run(f"new Promise(r => (f = n => {opened} || !n ? r(n) : setTimeout(f, 20, n - 1))(100))") > 0
    press("Tab", windowsVirtualKeyCode=9)
    assert browser.run("!!document.activeElement.closest('.detail')")
    assert browser.complaints() == []


def test_answers_are_found_sorted_and_linked(browser, options):
    browser.open(f"{options['page'].as_uri()}#sample-4")
    assert browser.run("document.querySelector('.detail h3').textContent") == "Question 4"
    shown = browser.run("document.querySelector('.question .text').textContent")
    assert shown == HOSTILE.replace("\ud83d", "?") and browser.run("window.injected") is None
    assert browser.run("document.querySelectorAll('.models article').length") == 3

    def search(text):
        browser.run(SET % ("[type=search]", text, "input"))

    search("INJECTED sft")
    assert browser.run("[...document.querySelectorAll('.list a')].map(a => a.hash)") == ["#sample-4"]
    search("no such word")
    assert browser.run("document.querySelector('.list').innerText") == "No question matches."
    search("")

    browser.run(SET % ("#sort", "longer", "change"))
    shown = browser.run("[...document.querySelectorAll('.list .key')].map(k => k.textContent)")
    changes = [int(text.replace("−", "-")) for text in shown]
    assert len(changes) == 40 and changes == sorted(changes, reverse=True) and changes[0] > changes[-1]
    browser.run("document.querySelector('.list a').click()")
    assert browser.run("document.querySelector('.list a').getAttribute('aria-current')") == "true"
    assert browser.run("location.hash") == browser.run("document.querySelector('.list a').hash")

    browser.open(f"{options['page'].as_uri()}#sample-5")
    browser.run("document.querySelectorAll('.step')[1].focus()")
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    browser.run("new Promise(r => (f = () => document.querySelector('.models .none') ? r() : setTimeout(f, 20))())")
    assert browser.run("document.activeElement.textContent") == "Next"
    assert browser.run("document.querySelector('.models .none').textContent") == "(empty answer)"
    assert browser.complaints() == []


def test_a_search_marks_its_hits_and_opens_the_first(browser, options):
    browser.open(options["page"].as_uri())
    word = browser.run("document.querySelectorAll('.list .asked')[7].textContent.slice(0, 3)")
    browser.run(SET % ("[type=search]", word, "input"))
    first = browser.run("document.querySelector('.list a').hash")
    assert browser.run("document.querySelector('.list a').getAttribute('aria-current')") == "true"
    assert browser.run("'#sample-' + document.querySelector('.detail h3').textContent.split(' ')[1]") == first
    marked = browser.run("[...document.querySelectorAll('.detail mark')].map(m => m.textContent)")
    assert marked and all(word in text or text in word for text in marked)
    browser.run(SET % ("[type=search]", "no such word", "input"))
    assert browser.run("document.querySelector('.detail').checkVisibility()") is False
    browser.run(SET % ("[type=search]", "", "input"))
    assert browser.run("document.querySelector('.detail h3').textContent") == "Question 1"
    assert browser.run("document.querySelectorAll('.detail mark').length") == 0
    assert browser.complaints() == []


def test_what_ppo_changed_is_marked(browser, options):
    """The marked characters are what is left of PPO's answer when a longest common subsequence is taken out."""
    browser.open(f"{options['page'].as_uri()}#sample-9")
    sft, ppo, marked = browser.run(
        "['.models article:nth-child(2) .text', '.models article:nth-child(3) .text'].map(s => "
        "document.querySelector(s).textContent).concat([[...document.querySelectorAll("
        "'.models article:nth-child(3) .text ins')].map(i => i.textContent).join('')])"
    )
    kept = browser.run(
        "[...document.querySelector('.models article:nth-child(3) .text').childNodes]"
        ".filter(n => n.nodeType === 3).map(n => n.data).join('')"
    )
    assert sorted(kept + marked) == sorted(ppo) and len(kept) == common(sft, ppo) > 0 and marked
    assert browser.run("document.querySelectorAll('.models article:nth-child(-n+2) ins').length") == 0


def common(one, other):
    """Length of a longest common subsequence."""
    row = [0] * (len(other) + 1)
    for a in one:
        diagonal = 0
        for at, b in enumerate(other, start=1):
            diagonal, row[at] = row[at], diagonal + 1 if a == b else max(row[at], row[at - 1])
    return row[-1]


def test_answers_are_saved_as_csv(browser, options):
    browser.open(options["page"].as_uri())
    browser.run("window.saved = null; URL.createObjectURL = blob => { window.saved = blob; return 'blob:x'; }")
    browser.run("HTMLAnchorElement.prototype.click = function () { window.name = this.download; }")
    browser.run("document.querySelector('.controls button').click()")
    assert browser.run("window.name") == "answers.csv"
    rows = list(csv.reader(io.StringIO(browser.run("window.saved.text()"))))
    assert len(rows) == 41 and rows[0][:5] == ["number", "history", "question", "doctor", "base"]
    assert "ppo.rouge-l" in rows[0] and all(len(row) == len(rows[0]) for row in rows)
    assert rows[4][2] == HOSTILE.replace("\ud83d", "?")
    assert browser.run("document.querySelector('.settings details').open") is False


SAVED = """(() => {
  window.saved = []; window.blobs = [];
  const original = URL.createObjectURL;
  URL.createObjectURL = blob => { window.blobs.push(blob); return original(blob); };
  HTMLAnchorElement.prototype.click = function () { window.saved.push([this.download, window.blobs.at(-1)]); };
})()"""


def test_a_figure_is_saved_as_its_numbers_and_as_a_picture(browser, options):
    browser.open(options["page"].as_uri())
    browser.run(SAVED)
    browser.run("""(async () => {
      const details = document.querySelector('[data-figure="reward-kl"]');
      details.open = true;
      for (let i = 0; i < 100 && !details.querySelector('button'); i++) await new Promise(r => setTimeout(r, 20));
      for (const button of details.querySelectorAll('button')) button.click();
      for (let i = 0; i < 500 && window.saved.length < 2; i++) await new Promise(r => setTimeout(r, 20));
    })()""")
    assert browser.run("window.saved.map(([name]) => name)") == ["reward-kl.csv", "reward-kl-0.png"]
    rows = list(csv.reader(io.StringIO(browser.run("window.saved[0][1].text()"))))
    table = browser.run("document.querySelectorAll('[data-figure=\"reward-kl\"] tbody tr').length")
    assert len(rows) == table + 1 > 10 and all(len(row) == 5 for row in rows)
    sizes = browser.run("""(async () => {
      const picture = await createImageBitmap(window.saved[1][1]);
      const plot = document.querySelector('[data-panel="reward-kl-0"]');
      return [window.saved[1][1].type, picture.width / plot.clientWidth, picture.height > 2 * plot.clientHeight];
    })()""")
    assert sizes == ["image/png", 2, True]
