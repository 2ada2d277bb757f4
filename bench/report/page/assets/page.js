"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in element) element[key] = value;
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  };
  const drawn = (name, attributes = {}) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const chooser = (label, options, chosen = 0) => {
    const select = make("select");
    options.forEach((text, index) => select.append(make("option", { value: String(index) }, text)));
    select.selectedIndex = chosen;
    return [make("label", {}, label, select), select];
  };
  const root = document.documentElement;
  root.classList.add("js");

  // ------------------------------------------------------------------------------------------------ theme
  const themes = ["system", "light", "dark"];
  const themeButton = one("#theme");
  const stored = (value) => {
    try { // a page from disk may be refused storage
      if (value === undefined) return localStorage.getItem("isochron-theme");
      localStorage.setItem("isochron-theme", value);
    } catch { /* the choice then lasts as long as the page */ }
    return null;
  };
  let theme = themes.includes(stored()) ? stored() : "system";
  const showTheme = () => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    themeButton.textContent = `Theme: ${theme}`;
  };
  themeButton.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    stored(theme);
    showTheme();
  });
  showTheme();

  // ------------------------------------------------------------------------------------------------ one part at a time
  const views = all(".view");
  const menu = one("#menu");
  const contents = one("#contents");
  const openMenu = (open) => {
    contents.classList.toggle("open", open);
    menu.setAttribute("aria-expanded", String(open));
  };
  menu.addEventListener("click", () => openMenu(menu.getAttribute("aria-expanded") !== "true"));
  let first = true;
  const route = () => {
    const name = decodeURIComponent(location.hash.slice(1));
    const target = document.getElementById(name);
    const chosen = (target && target.closest(".view")) || views[0];
    for (const view of views) {
      view.hidden = name !== "all" && view !== chosen;
      view.classList.toggle("stacked", name === "all");
      if (!view.hidden) enhance(view);
    }
    const address = name === "all" ? "all" : chosen.id;
    for (const link of all("a", contents)) {
      if (link.hash === `#${address}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const heading = one("h1", name === "all" ? views[0] : chosen);
    document.title = `${heading.textContent.trim()} · Isochron`;
    openMenu(false);
    closePanel();
    if (target && target !== chosen && target.id !== "main") target.scrollIntoView();
    else if (!first) {
      window.scrollTo(0, 0);
      heading.focus({ preventScroll: true });
    }
    first = false;
  };

  // ------------------------------------------------------------------------------------------------ filters
  const byTask = one("#by-task");
  const byStatus = one("#by-status");
  const filter = () => {
    let shown = 0;
    const entries = all(".card, .claims > li");
    for (const entry of entries) {
      const task = !byTask.value || entry.dataset.task === byTask.value;
      const status = !byStatus || !byStatus.value || !entry.dataset.status || entry.dataset.status === byStatus.value;
      entry.hidden = !(task && status);
      shown += entry.hidden ? 0 : 1;
    }
    one("#filtered").textContent = shown < entries.length ? `${shown} of ${entries.length} shown` : "";
  };
  for (const select of [byTask, byStatus]) if (select) select.addEventListener("change", filter);

  // ------------------------------------------------------------------------------------------------ tables
  const units = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, ms: 1e-3, s: 1, min: 60, h: 3600 };
  const number = (text) => {
    const found = /^[<>≤≥~]?\s*([+\-−]?[\d,]*\.?\d+(?:e[+-]?\d+)?)\s*([A-Za-z]*)/.exec(text);
    return found ? Number(found[1].replaceAll(",", "").replace("−", "-")) * (units[found[2]] || 1) : null;
  };
  const sort = (table, column, ascending) => {
    for (const body of table.tBodies) {
      const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].dataset.text || row.cells[column].textContent.trim() }));
      const numeric = rows.some(({ text }) => number(text) !== null) && rows.every(({ text }) => number(text) !== null || !/^[+\-−]?\d/.test(text));
      rows.sort((a, b) => {
        if (!numeric) return (ascending ? 1 : -1) * a.text.localeCompare(b.text, "en", { numeric: true });
        const [left, right] = [number(a.text), number(b.text)];
        if (left === null || right === null) return (left === null) - (right === null);
        return (ascending ? 1 : -1) * (left - right);
      });
      body.append(...rows.map(({ row }) => row));
    }
  };
  const sortable = (table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = make("button", { type: "button" }, ...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const before = heading.getAttribute("aria-sort");
        const ascending = before === "none" ? !heading.classList.contains("n") : before === "descending";
        headings.forEach((other) => other.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sort(table, column, ascending);
      });
    });
  };

  // ------------------------------------------------------------------------------------------------ where numbers come from
  const panel = one("#source");
  let opener = null;
  const closePanel = () => {
    panel.hidden = true;
    if (opener && opener.isConnected) opener.focus({ preventScroll: true });
    opener = null;
  };
  one(".close", panel).addEventListener("click", closePanel);
  const openPanel = (data, index, about, from) => {
    const found = [index].flat().map((number) => data.sources[number]);
    const source = { files: [...new Set(found.flatMap(({ files }) => files))], runs: found.flatMap(({ runs }) => runs) };
    const origin = found[0].origin || data.origin;
    const entries = [
      ...about,
      ["Folder", origin.folder],
      ["Files in it", source.files.join("\n")],
      ["Runs", source.runs.join("\n")],
      ["Device", origin.device],
      ["Commit", origin.commit],
      ["Protocol", origin.protocol],
    ];
    one("dl", panel).replaceChildren(
      ...entries
        .filter(([, value]) => value)
        .map(([name, value]) => {
          const lines = value.split("\n").flatMap((line, place) => (place ? [make("br"), line] : [line]));
          return make("div", {}, make("dt", {}, name), make("dd", {}, ...lines));
        }),
    );
    panel.hidden = false;
    opener = from;
    one("h2", panel).focus({ preventScroll: true });
  };
  const explain = (data, cell, from) => {
    const row = cell.parentElement;
    const table = cell.closest("table");
    const heading = table.tHead.rows[0].cells[cell.cellIndex].textContent.trim();
    const name = row.cells[0].dataset.text || row.cells[0].textContent.trim();
    const whole = cell.cellIndex === 0;
    openPanel(data, Number(row.dataset.source), [["Row", name], ...(whole ? [] : [["Column", heading], ["Value", cell.textContent.trim()]])], from);
  };
  const explained = (view, data) => {
    for (const row of all("tr[data-source]", view)) {
      const cell = row.cells[0];
      cell.dataset.text = cell.textContent.trim();
      const button = make("button", { type: "button", className: "why", title: "Where this row comes from" }, "i");
      button.setAttribute("aria-label", `Where the numbers of ${cell.dataset.text} come from`);
      cell.append(button);
    }
    view.addEventListener("click", (event) => {
      const why = event.target.closest(".why");
      const cell = event.target.closest("tr[data-source] > *");
      const link = event.target.closest("button[data-source]");
      if (why) explain(data, why.parentElement, why);
      else if (cell && cell.cellIndex && !String(getSelection())) explain(data, cell, one(".why", cell.parentElement));
      else if (link) openPanel(data, Number(link.dataset.source), [["Of", `the ${link.dataset.what}`]], link);
    });
  };

  // ------------------------------------------------------------------------------------------------ curves and bars
  const tip = one("#tip");
  const tipped = "[data-tip], [data-at], [data-spent]";
  const told = (element) => {
    if (element.dataset.tip) return element.dataset.tip;
    if (element.dataset.spent) {
      const part = one(`[data-part="${element.classList[0]}"]`, element.closest(".ledger")).textContent;
      return `${element.parentElement.dataset.title}\n${part}: ${element.dataset.spent} s`;
    }
    const { x, y } = element.closest("svg").dataset;
    const [mean, low, high, at] = element.dataset.at.split("|");
    const seeds = low ? ` (seeds ${low} to ${high})` : "";
    const open = element.classList.contains("open") ? "\nnot annealed" : "";
    return `${element.parentElement.dataset.title}\n${y} ${mean}${seeds}\nat ${at}, ${x}${open}`;
  };
  const showTip = (event) => {
    const target = event.target.closest && event.target.closest(tipped);
    if (target || !event.target.closest || !event.target.closest("svg.walk:focus")) tell(target);
  };
  const tell = (element) => {
    for (const before of all(".here")) before.classList.remove("here");
    tip.hidden = !element;
    if (!element) return;
    element.classList.add("here");
    tip.textContent = told(element);
    const box = element.getBoundingClientRect();
    const middle = box.left + Math.min(box.width, 400) / 2 - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(8, Math.min(root.clientWidth - tip.offsetWidth - 8, middle))}px`;
    const above = box.top - tip.offsetHeight - 8;
    tip.style.top = `${above > 60 ? above : box.bottom + 8}px`;
  };
  document.addEventListener("pointerover", showTip);
  document.addEventListener("click", showTip);
  document.addEventListener("focusout", () => tell(null));
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches("svg.walk")) return;
    const points = all(tipped, event.target);
    const now = points.findIndex((point) => point.classList.contains("here"));
    if (points.length) tell(points[now < 0 ? (step > 0 ? 0 : points.length - 1) : (now + step + points.length) % points.length]);
    event.preventDefault();
  });
  const switched = (box) => {
    const buttons = all(".switch button", box);
    const show = (view) => {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.view === view));
      for (const chart of all(".chart", box)) chart.hidden = chart.dataset.view !== view;
    };
    for (const button of buttons) button.addEventListener("click", () => show(button.dataset.view));
    if (buttons.length) show(buttons[0].dataset.view);
  };
  const dimmed = (box) => {
    const titles = new Set(all(".line", box).map((line) => line.dataset.title));
    const dim = (title) => all(".line", box).forEach((line) => line.classList.toggle("faint", titles.has(title) && line.dataset.title !== title));
    for (const entry of all(".legend li", box)) {
      entry.addEventListener("pointerenter", () => dim(entry.dataset.title));
      entry.addEventListener("pointerleave", () => dim(null));
    }
  };

  // ------------------------------------------------------------------------------------------------ pictures
  const tile = (canvas, image, grid, row, column) => {
    const [width, height] = grid.size;
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").drawImage(image, column * width, row * height, width, height, 0, 0, width, height);
  };
  const whenRead = (image, then) => (image.complete && image.naturalWidth ? then() : image.addEventListener("load", then, { once: true }));
  const slider = (view, data) => {
    const place = one(".slider", view);
    const grid = data.grid;
    if (!place || !grid) return null;
    const image = one("figure.grid img", view);
    const truth = Math.max(0, grid.columns.findIndex((name) => /truth|original/.test(name)));
    const [leftLabel, left] = chooser("Left", grid.columns, truth);
    const [rightLabel, right] = chooser("Right", grid.columns, grid.first_arm);
    const [rowLabel, row] = chooser("Picture", grid.rows);
    const range = make("input", { type: "range", min: "0", max: "100", value: "50", step: "1" });
    range.setAttribute("aria-label", "Where the left picture ends");
    const [under, over] = [make("canvas"), make("canvas")];
    const handle = make("div", { className: "handle" });
    const [leftName, rightName] = [make("span", { className: "side left" }), make("span", { className: "side right" })];
    const stage = make("div", { className: "stage" }, under, over, handle, leftName, rightName);
    stage.setAttribute("role", "img");
    const split = () => {
      over.style.clipPath = `inset(0 ${100 - range.value}% 0 0)`;
      handle.style.left = `${range.value}%`;
    };
    const paint = () =>
      whenRead(image, () => {
        tile(over, image, grid, row.selectedIndex, left.selectedIndex);
        tile(under, image, grid, row.selectedIndex, right.selectedIndex);
        leftName.textContent = grid.columns[left.selectedIndex];
        rightName.textContent = grid.columns[right.selectedIndex];
        stage.setAttribute("aria-label", `${grid.rows[row.selectedIndex]}: ${leftName.textContent} on the left, ${rightName.textContent} on the right`);
      });
    const drag = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = stage.getBoundingClientRect();
      range.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
      split();
    };
    stage.addEventListener("pointerdown", drag);
    stage.addEventListener("pointermove", drag);
    range.addEventListener("input", split);
    for (const select of [left, right, row]) select.addEventListener("change", paint);
    const controls = make("div", { className: "controls" }, rowLabel, leftLabel, rightLabel);
    place.append(make("div", { className: "slider-box" }, make("div", {}, stage, range), controls));
    split();
    paint();
    return (number) => {
      row.selectedIndex = number;
      paint();
      place.scrollIntoView({ block: "center" });
    };
  };

  // ------------------------------------------------------------------------------------------------ samples
  const LIMIT = 12;
  const unpacked = ({ least, wide, codes }, digits, count) => {
    const bytes = Uint8Array.from(atob(codes), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const size = wide ? 4 : 2;
    const all = Array.from({ length: bytes.length / size }, (_, place) => {
      const code = wide ? view.getUint32(place * size, true) : view.getUint16(place * size, true);
      return code ? (least + code - 1) / 10 ** digits : null;
    });
    return Array.from({ length: all.length / count }, (_, arm) => all.slice(arm * count, (arm + 1) * count));
  };
  const drill = (view, data, showRow) => {
    const place = one(".samples", view);
    const { samples, grid } = data;
    if (!place || !samples) return;
    const values = samples.values.map((packed, index) => unpacked(packed, samples.metrics[index].digits, samples.names.length));
    const [aLabel, a] = chooser("Arm A", samples.arms, 0);
    const [bLabel, b] = chooser("Arm B", samples.arms, samples.arms.length > 1 ? 1 : 0);
    const [metricLabel, metric] = chooser("Metric", samples.metrics.map(({ label }) => label));
    const [orderLabel, order] = chooser("Order", ["largest disagreement", "A − B, largest first", "B − A, largest first", "name"]);
    const table = make("table");
    const region = make("div", { className: "scroll", tabIndex: 0 }, table);
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", "Samples");
    const more = make("button", { type: "button" });
    const scatter = make("figure", { className: "chart scatter" });
    const strip = make("div", { className: "strip" });
    strip.setAttribute("aria-live", "polite");
    const image = one("figure.grid img", view);
    let limit = LIMIT;
    const pictures = (name) => {
      const rows = (grid && grid.samples[name]) || [];
      strip.replaceChildren();
      if (!rows.length) {
        strip.append(make("p", { className: "note" }, `${name} is not among the pictures.`));
        return;
      }
      const names = [samples.arms[a.selectedIndex], samples.arms[b.selectedIndex]];
      const plain = (text) => text.replace(/[^a-z0-9]+/gi, "");
      const arms = grid.columns.flatMap((column, index) => (index >= grid.first_arm && names.some((title) => plain(title).startsWith(plain(column.replace(/, true statistics$/, "")))) ? [index] : []));
      const leads = [...Array(grid.first_arm).keys()];
      whenRead(image, () => {
        for (const row of rows.slice(0, 3)) {
          for (const column of [...leads, ...arms]) {
            const canvas = make("canvas");
            tile(canvas, image, grid, row, column);
            canvas.setAttribute("role", "img");
            canvas.setAttribute("aria-label", `${grid.rows[row]}, ${grid.columns[column]}`);
            strip.append(make("figure", {}, canvas, make("figcaption", {}, grid.columns[column])));
          }
        }
        const button = make("button", { type: "button" }, "Compare in the slider");
        button.addEventListener("click", () => showRow(rows[0]));
        strip.append(button);
      });
    };
    const mark = (index) => {
      for (const element of all("[data-sample]", place)) element.classList.toggle("marked", element.dataset.sample === String(index));
      pictures(samples.names[index]);
    };
    const plot = (found, label) => {
      const [size, margin] = [300, 40];
      const values = found.flatMap(({ left, right }) => [left, right]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const scale = (value) => margin + ((size - margin - 12) * (value - low)) / (high - low || 1);
      const svg = drawn("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": `${label} of every sample: arm A across, arm B upwards` });
      svg.append(drawn("path", { class: "axis", d: `M${margin} 12V${size - margin}H${size - 12}` }));
      svg.append(drawn("path", { class: "reference", d: `M${margin} ${size - margin}L${size - 12} 12` }));
      const write = (text, x, y, name) => {
        const element = drawn("text", { x, y, class: name });
        element.textContent = text;
        svg.append(element);
      };
      const digits = samples.metrics[metric.selectedIndex].digits;
      write(`A: ${samples.arms[a.selectedIndex]}`, (size + margin) / 2 - 6, size - 6, "x name");
      write(`B: ${samples.arms[b.selectedIndex]}`, margin + 6, 20, "name");
      write(low.toFixed(digits > 2 ? 2 : 1), margin, size - margin + 15, "x");
      write(high.toFixed(digits > 2 ? 2 : 1), size - 24, size - margin + 15, "x");
      for (const { index, left, right, name } of found) {
        const shown = `${name}\nA ${left.toFixed(digits)}, B ${right.toFixed(digits)}`;
        const point = drawn("circle", { cx: scale(left).toFixed(1), cy: (size - scale(right)).toFixed(1), r: 4, "data-tip": shown, "data-sample": index });
        point.addEventListener("click", () => mark(index));
        svg.append(point);
      }
      scatter.replaceChildren(make("figcaption", {}, `${label}: each point a sample`), svg);
    };
    const show = () => {
      const { label, digits } = samples.metrics[metric.selectedIndex];
      const columns = values[metric.selectedIndex];
      const found = samples.names.flatMap((name, index) => {
        const [left, right] = [columns[a.selectedIndex][index], columns[b.selectedIndex][index]];
        return left === null || right === null ? [] : [{ index, name, left, right, difference: left - right }];
      });
      const keys = [(x) => -Math.abs(x.difference), (x) => -x.difference, (x) => x.difference];
      if (order.selectedIndex < keys.length) found.sort((x, y) => keys[order.selectedIndex](x) - keys[order.selectedIndex](y) || x.index - y.index);
      const head = make("tr", {}, ...["sample", `A: ${samples.arms[a.selectedIndex]}`, `B: ${samples.arms[b.selectedIndex]}`, "A − B"].map((text, column) => make("th", { scope: "col", className: column ? "n" : "" }, text)));
      const body = make("tbody");
      for (const { index, name, left, right, difference } of found.slice(0, limit)) {
        const button = make("button", { type: "button", className: "link" }, name);
        button.addEventListener("click", () => mark(index));
        const pictured = grid && grid.samples[name] ? " ▣" : "";
        const sign = difference > 0 ? "+" : "";
        const row = make("tr", {}, make("th", { scope: "row" }, button, pictured), ...[left.toFixed(digits), right.toFixed(digits), sign + difference.toFixed(digits)].map((text) => make("td", { className: "n" }, text)));
        row.dataset.sample = index;
        body.append(row);
      }
      table.replaceChildren(make("caption", { className: "note" }, `${found.length} samples, ${label}${pictureNote}`), make("thead", {}, head), body);
      more.hidden = limit >= found.length;
      more.textContent = `Show all ${found.length}`;
      scatter.hidden = found.length === 0;
      if (found.length) {
        plot(found, label);
        mark((found.find(({ name }) => grid && grid.samples[name]) || found[0]).index);
      }
    };
    const pictureNote = grid && Object.keys(grid.samples).length ? "; ▣: among the pictures" : "";
    more.addEventListener("click", () => {
      limit = Infinity;
      show();
    });
    for (const select of [a, b, metric, order])
      select.addEventListener("change", () => {
        limit = LIMIT;
        show();
      });
    table.addEventListener("click", (event) => {
      const cell = event.target.closest("tbody td");
      if (!cell || String(getSelection())) return;
      const behind = [[a], [b], [a, b]][cell.cellIndex - 1].map((select) => samples.sources[select.selectedIndex]);
      const row = cell.parentElement;
      const about = [["Sample", samples.names[row.dataset.sample]], ["Column", table.tHead.rows[0].cells[cell.cellIndex].textContent], ["Value", cell.textContent]];
      openPanel(data, behind, about, one("button", row));
    });
    place.append(
      make("div", { className: "choosers" }, aLabel, bLabel, metricLabel, orderLabel),
      make("div", { className: "sample-box" }, make("div", {}, region, more), make("div", {}, scatter, grid ? strip : "")),
    );
    show();
  };

  // ------------------------------------------------------------------------------------------------ start
  const enhanced = new Set();
  const enhance = (view) => {
    if (enhanced.has(view)) return;
    enhanced.add(view);
    const holder = one("script.data", view);
    const data = holder && JSON.parse(holder.textContent);
    all("table.sortable", view).forEach(sortable);
    all(".curves", view).forEach(switched);
    all(".curves, .figure", view).forEach(dimmed);
    if (!data) return;
    explained(view, data);
    drill(view, data, slider(view, data));
  };
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (!panel.hidden) closePanel();
    tip.hidden = true;
  });
  addEventListener("hashchange", route);
  route();
})();
