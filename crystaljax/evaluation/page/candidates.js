// The table of candidates of a report: sorted by a click on a header, filtered by its second row,
// and the chosen structure in a viewer that turns with the mouse.
"use strict";
(() => {
  const THUMBNAIL = 88;
  const section = document.querySelector(".candidates");
  const { columns, rows } = JSON.parse(document.getElementById("candidates-data").textContent);
  const body = section.querySelector("tbody");
  const shown = section.querySelector(".shown");
  const title = section.querySelector(".chosen-title");
  const legend = section.querySelector(".elements");
  const link = section.querySelector(".cif");
  const filters = [...section.querySelectorAll(".filters input")];
  const sorting = { column: null, descending: false };
  let viewer = null;
  let chosen = null;

  function draw(view, cif) {
    view.removeAllModels();
    view.removeAllShapes();
    const model = view.addModel(cif, "cif", {
      doAssembly: true, duplicateAssemblyAtoms: true, normalizeAssembly: true });
    view.setStyle({}, { sphere: { scale: 0.3, colorscheme: "Jmol" },
      stick: { radius: 0.08, colorscheme: "Jmol" } });
    view.addUnitCell(model, { box: { color: "#57606a" }, alabel: "", blabel: "", clabel: "",
      astyle: { hidden: true }, bstyle: { hidden: true }, cstyle: { hidden: true } });
    view.zoomTo();
    view.rotate(-80, "x");
    view.rotate(18, "y");
    view.render();
    return [...new Set(model.selectedAtoms({}).map((atom) => atom.elem))];
  }

  function nameElements(elements) {
    legend.replaceChildren(...elements.map((element) => {
      const item = document.createElement("span");
      const ball = document.createElement("i");
      const colour = $3Dmol.elementColors.Jmol[element] ?? 0x888888;
      ball.style.background = `#${colour.toString(16).padStart(6, "0")}`;
      item.append(ball, element);
      return item;
    }));
  }

  function choose(row) {
    if (chosen) chosen.element.classList.remove("chosen");
    chosen = row;
    row.element.classList.add("chosen");
    title.textContent = columns.map((c, i) =>
      c.kind === "text" ? row.texts[i] : `${c.name} ${row.texts[i]}`).join(" · ");
    link.href = URL.createObjectURL(new Blob([row.cif], { type: "chemical/x-cif" }));
    link.download = `${row.name}.cif`;
    if (viewer) nameElements(draw(viewer, row.cif));
  }

  // "≤ 0.1" and "> 1e-3" compare numbers, a number alone means at most; a sign alone is a filter
  // that is being written. Of columns of texts, those that contain the words are kept.
  const comparison = /^([<>≤≥]?)=?\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)$/i;

  function limit(wanted) {
    const found = wanted.replace(/[−–]/g, "-").replace(",", ".").match(comparison);
    return found && { least: found[1] === ">" || found[1] === "≥", value: Number(found[2]) };
  }

  function passes(value, column, filter) {
    if (filter.type === "checkbox") return !filter.checked || value;
    const wanted = filter.value.trim();
    if (!wanted) return true;
    if (column.kind !== "number") return value.toLowerCase().includes(wanted.toLowerCase());
    const bound = limit(wanted);
    if (!bound) return true;
    return value !== null && (bound.least ? value >= bound.value : value <= bound.value);
  }

  // A number's filter that cannot be read keeps all rows, and is marked.
  function mark(filter, column) {
    const wanted = filter.value.trim();
    const unread = column.kind === "number" && wanted !== "" && !limit(wanted);
    filter.setAttribute("aria-invalid", unread);
    filter.title = unread ? "Write a limit, such as ≤ 0.1 or > 2" : "";
  }

  function refresh() {
    columns.forEach((column, i) => mark(filters[i], column));
    const kept = rows.filter((row) =>
      columns.every((column, i) => passes(row.cells[i], column, filters[i])));
    if (sorting.column !== null) {
      const way = sorting.descending ? -1 : 1;
      const key = (row) => row.cells[sorting.column];
      kept.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return way * (typeof x === "string"
          ? x.localeCompare(y, "en", { numeric: true }) : x - y);
      });
    }
    body.replaceChildren(...kept.map((row) => row.element));
    shown.textContent = `${kept.length} of ${rows.length} candidates`;
  }

  function element(row) {
    const line = document.createElement("tr");
    line.tabIndex = 0;
    line.append(document.createElement("td"));
    columns.forEach((column, i) => {
      const cell = document.createElement("td");
      cell.textContent = row.texts[i];
      if (column.kind === "number") cell.className = "number";
      line.append(cell);
    });
    line.addEventListener("click", () => choose(row));
    line.addEventListener("keydown", (event) => {
      const next = { ArrowDown: line.nextSibling, ArrowUp: line.previousSibling,
        Enter: line }[event.key];
      if (!next) return;
      event.preventDefault();
      next.focus();
      next.click();
    });
    return line;
  }

  // Pictures of the rows in sight are drawn, one by one, so that the page can be used meanwhile.
  function thumbnails() {
    const holder = document.createElement("div");
    holder.style.cssText =
      `position:absolute;left:-9999px;width:${THUMBNAIL}px;height:${THUMBNAIL}px`;
    document.body.append(holder);
    const small = $3Dmol.createViewer(holder, { backgroundColor: "white" });
    const waiting = [];
    const next = () => {
      const row = waiting.shift();
      draw(small, row.cif);
      const picture = new Image();
      picture.src = small.pngURI();
      picture.alt = "";
      row.element.firstChild.append(picture);
      if (waiting.length) setTimeout(next, 0);
    };
    const sight = new IntersectionObserver((entries) => {
      const idle = !waiting.length;
      entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
        sight.unobserve(entry.target);
        waiting.push(rows.find((row) => row.element === entry.target));
      });
      if (idle && waiting.length) setTimeout(next, 0);
    });
    rows.forEach((row) => sight.observe(row.element));
  }

  rows.forEach((row) => { row.element = element(row); });
  section.querySelectorAll("thead button").forEach((button, i) => {
    button.addEventListener("click", () => {
      sorting.descending = sorting.column === i && !sorting.descending;
      sorting.column = i;
      section.querySelectorAll("thead tr:first-child th").forEach((head) =>
        head.removeAttribute("aria-sort"));
      button.parentElement.setAttribute(
        "aria-sort", sorting.descending ? "descending" : "ascending");
      refresh();
    });
  });
  filters.forEach((filter) => filter.addEventListener("input", refresh));
  refresh();
  try {
    viewer = $3Dmol.createViewer(section.querySelector(".view"), { backgroundColor: "white" });
    thumbnails();
  } catch (error) {
    section.querySelector(".view").textContent = `No 3D pictures: ${error.message}`;
  }
  choose(rows[0]);
})();
