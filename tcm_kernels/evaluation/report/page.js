/* Shows the figures of one step of the slider. What is shown was counted beforehand; here it is only
   looked up, divided and formatted. Text from outside reaches the page through textContent alone. */
"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  const PAGE = 50;
  const slider = find("threshold");

  const grouped = (n) => n.toLocaleString("en-US");
  const rate = (count, total) => (total > 0 ? count / total : NaN);
  /* Three significant digits: 12.3 %, 0.0123 %. */
  const percent = (x) => (x === null || Number.isNaN(x) ? "–" : x === 0 ? "0 %" : `${(100 * x).toPrecision(3)} %`);
  const outOf = (count, total) => (total > 0 ? `${grouped(count)} of ${grouped(total)}` : "no pairs");

  function element(tag, className, ...children) {
    const made = document.createElement(tag);
    made.className = className;
    made.append(...children); // strings become text nodes
    return made;
  }
  /* A name of its own direction, so that marks for right-to-left text end with it. */
  function nameOf(index) {
    const name = data.names[index];
    const made = element("bdi", "name", name.trim() === "" ? JSON.stringify(name) : name);
    made.title = name;
    return made;
  }

  /* Rows of counts that grow with the threshold, stored as differences. */
  const unpack = (rows) => rows.map((row) => {
    let sum = 0;
    return Float64Array.from(row, (more) => (sum += more));
  });
  const below = data.every && { positives: unpack(data.every.positives), negatives: unpack(data.every.negatives) };
  const state = { step: data.start, sort: "name", descending: false, filter: "", page: 0 };

  /* The rows of the first table: pooled, quantiles of classes, gap. */
  function summary() {
    const { pooled, quantiles } = data;
    const far = quantiles.far[state.step];
    const frr = quantiles.frr[state.step];
    const last = data.quantile_names.length - 1;
    const rows = [
      ["all pairs together", rate(pooled.accepts[state.step], pooled.negatives), rate(pooled.rejects[state.step], pooled.positives)],
      ...data.quantile_names.map((name, i) => [name, far && far[i], frr && frr[i]]),
      ["gap: highest − lowest", far && far[last] - far[0], frr && frr[last] - frr[0]],
    ];
    find("summary").tBodies[0].replaceChildren(...rows.map(([name, accepts, rejects]) => {
      const heading = element("th", "", name);
      heading.scope = "row";
      return element("tr", "", heading, element("td", "", percent(accepts)), element("td", "", percent(rejects)));
    }));
    find("pooled-far").textContent = percent(rows[0][1]);
    find("pooled-frr").textContent = percent(rows[0][2]);
  }

  function bar(share) {
    const made = element("span", "bar");
    made.style.width = `${100 * share}%`;
    return made;
  }
  function histogram(which) {
    const counts = data.histogram[which][state.step];
    const most = Math.max(1, ...counts);
    find(`histogram-${which}`).replaceChildren(...counts.map((count, i) => element("li", "",
      element("span", "label", data.histogram_names[i]),
      element("span", "track", bar(count / most)),
      element("span", "count", grouped(count)))));
  }

  function worst(which) {
    let highest = 0; // the first one's, to which the bars are drawn
    const rows = data.worst[which][state.step].map(([index, accepts, rejects]) => {
      const far = { count: accepts, total: data.negatives[index], name: "false accepts" };
      const frr = { count: rejects, total: data.positives[index], name: "false rejects" };
      const [own, other] = which === "far" ? [far, frr] : [frr, far];
      const value = rate(own.count, own.total);
      highest = Math.max(highest, value);
      return element("li", "",
        element("span", "heading", nameOf(index), element("b", "rate", percent(value))),
        element("span", "track", bar(highest && value / highest)),
        element("span", "detail",
          `${outOf(own.count, own.total)} · ${other.name} ${percent(rate(other.count, other.total))}`));
    });
    find(`worst-${which}`).replaceChildren(...(rows.length ? rows : [element("li", "none", "none has such pairs")]));
  }

  /* Per class: [index, FAR, FRR], those the filter lets through, in the order asked for. */
  function chosenClasses() {
    const wanted = state.filter.toLowerCase();
    const rows = [];
    data.names.forEach((name, i) => {
      if (name.toLowerCase().includes(wanted)) {
        rows.push([i,
          rate(data.negatives[i] - below.negatives[i][state.step], data.negatives[i]),
          rate(below.positives[i][state.step], data.positives[i])]);
      }
    });
    const column = { name: 0, far: 1, frr: 2 }[state.sort];
    const sign = state.descending ? -1 : 1;
    return rows.sort((a, b) => {
      const [x, y] = [a[column], b[column]];
      if (Number.isNaN(x) || Number.isNaN(y)) { // no such pairs: always last
        return Number.isNaN(x) - Number.isNaN(y) || a[0] - b[0];
      }
      return sign * (x - y) || a[0] - b[0];
    });
  }
  function everyClass() {
    if (!below) return;
    const rows = chosenClasses();
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const shown = rows.slice(state.page * PAGE, (state.page + 1) * PAGE);
    find("classes").tBodies[0].replaceChildren(...shown.map(([i, far, frr]) => element("tr", "",
      element("td", "", nameOf(i)),
      element("td", "", element("b", "rate", percent(far)), element("small", "",
        outOf(data.negatives[i] - below.negatives[i][state.step], data.negatives[i]))),
      element("td", "", element("b", "rate", percent(frr)), element("small", "",
        outOf(below.positives[i][state.step], data.positives[i]))))));
    find("found").textContent = `${grouped(rows.length)} of ${grouped(data.names.length)}`;
    find("page").textContent = `page ${state.page + 1} of ${pages}`;
    find("previous").disabled = state.page === 0;
    find("next").disabled = state.page === pages - 1;
    for (const button of find("classes").querySelectorAll("[data-sort]")) {
      const own = button.dataset.sort === state.sort;
      button.parentNode.ariaSort = own ? (state.descending ? "descending" : "ascending") : "none";
    }
  }

  function show() {
    const text = data.thresholds[state.step];
    find("value").textContent = text;
    slider.setAttribute("aria-valuetext", text);
    const x = (1000 * state.step) / Math.max(1, data.thresholds.length - 1);
    find("cursor").setAttribute("x1", x);
    find("cursor").setAttribute("x2", x);
    summary();
    for (const which of ["far", "frr"]) {
      histogram(which);
      worst(which);
    }
    everyClass();
  }

  slider.max = data.thresholds.length - 1;
  slider.value = data.start;
  find("first").textContent = data.thresholds[0];
  find("last").textContent = data.thresholds[data.thresholds.length - 1];
  find("chosen-value").textContent = data.thresholds[data.start];
  slider.addEventListener("input", () => {
    state.step = Number(slider.value);
    show();
  });
  find("chosen").addEventListener("click", () => {
    slider.value = state.step = data.start;
    show();
  });
  find(below ? "all-left-out" : "all-content").remove();
  if (below) {
    find("filter").addEventListener("input", (event) => {
      Object.assign(state, { filter: event.target.value, page: 0 });
      everyClass();
    });
    for (const button of find("classes").querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => {
        const sort = button.dataset.sort;
        // Rates begin with the worst, names with the first.
        const descending = sort === state.sort ? !state.descending : sort !== "name";
        Object.assign(state, { sort, descending, page: 0 });
        everyClass();
      });
    }
    for (const [id, by] of [["previous", -1], ["next", 1]]) {
      find(id).addEventListener("click", () => {
        state.page += by;
        everyClass();
      });
    }
  }
  show();
})();
