// live.js - every drawing that has its points beside it (curves.c) becomes a chart: values under the pointer, zoom by dragging, a
// logarithmic axis and smoothing by switches. What was chosen outlives a reload, so that a page of a run that goes on can be read.
(function () {
  'use strict';
  if (typeof Dygraph === 'undefined') return;

  const style = getComputedStyle(document.documentElement);
  const ink = (name) => style.getPropertyValue(name).trim();
  const number = (v) => (v === 0 ? '0' : Number(v.toPrecision(4)).toString());
  const count = (v) => {
    for (const [scale, unit] of [[1e9, 'B'], [1e6, 'M'], [1e3, 'k']])
      if (Math.abs(v) >= scale) return Number((v / scale).toPrecision(4)) + '\u202f' + unit;
    return number(v);
  };

  const key = 'cab ' + location.pathname + ' ';
  function recall(title) {
    try {
      return JSON.parse(sessionStorage.getItem(key + title)) || {};
    } catch (e) {
      return {};
    }
  }
  function keep(title, chosen) {
    try {
      sessionStorage.setItem(key + title, JSON.stringify(chosen));
    } catch (e) {
      // a browser that keeps nothing for files
    }
  }

  function element(parent, name, text) {
    const made = parent.appendChild(document.createElement(name));
    if (text) made.textContent = text;
    return made;
  }

  // The mean of each point and those before it, `width` in all.
  function smooth(values, width) {
    let sum = 0;
    return values.map((v, i) => {
      sum += v - (i >= width ? values[i - width] : 0);
      return sum / Math.min(i + 1, width);
    });
  }

  // Rows of [x, y of series 0, y of series 1, ...], with null where a series has no point.
  function table(lines, log) {
    const rows = new Map();
    lines.forEach((line, s) =>
      line.x.forEach((x, i) => {
        if (!rows.has(x)) rows.set(x, [x, ...lines.map(() => null)]);
        if (!log || line.shown[i] > 0) rows.get(x)[s + 1] = line.shown[i];
      }));
    return [...rows.values()].sort((a, b) => a[0] - b[0]);
  }

  function nearest(line, x) {
    let best = 0;
    line.x.forEach((v, i) => {
      if (Math.abs(v - x) < Math.abs(line.x[best] - x)) best = i;
    });
    return line.shown[best];
  }

  function lines(data) {
    const all = data.series.map((s) => ({ ...s, dash: s.dash ? s.dash.split(' ').map(Number) : null }));
    if (data.teacher !== undefined) {
      const x = all.flatMap((s) => s.x);
      const ends = [x.reduce((a, b) => Math.min(a, b)), x.reduce((a, b) => Math.max(a, b))];
      all.push({ name: 'teacher', colour: ink('--muted'), dash: [7, 5], x: ends, y: [data.teacher, data.teacher], fixed: true });
    }
    return all;
  }

  // On a phone a finger scrolls the page; a tap shows values.
  function interaction() {
    const model = { ...Dygraph.defaultInteractionModel };
    delete model.touchstart;
    delete model.touchmove;
    delete model.touchend;
    return model;
  }

  function makeLive(figure) {
    const data = JSON.parse(figure.querySelector('script').textContent);
    const title = figure.querySelector('h3').textContent;
    const chosen = { log: data.log, smooth: 1, zoom: null, ...recall(title) };
    const all = lines(data);
    const plot = element(figure, 'div');
    const values = element(figure, 'div');
    const switches = element(figure, 'div');
    plot.className = 'plot';
    values.className = 'values';
    switches.className = 'switches';
    figure.classList.add('live');

    function show(x) {
      values.textContent = '';
      if (x === null) {
        element(values, 'span', 'Point at the chart for values' + (matchMedia('(hover: hover)').matches ? ', drag to zoom.' : '.'));
        return;
      }
      element(values, 'span', count(x) + ' ' + data.x);
      for (const line of all) element(element(values, 'span', line.name + ' '), 'b', number(nearest(line, x)));
    }

    function prepare() {
      for (const line of all) line.shown = line.fixed ? line.y : smooth(line.y, chosen.smooth);
      return table(all, chosen.log);
    }

    const names = all.map((_, i) => 's' + i);
    const graph = new Dygraph(plot, prepare(), {
      labels: ['x', ...names],
      series: Object.fromEntries(all.map((line, i) =>
        [names[i], { color: line.colour, strokePattern: line.dash, drawPoints: data.marks && !line.fixed }])),
      strokeWidth: 2,
      pointSize: 2.4,
      highlightCircleSize: 4,
      connectSeparatedPoints: true,
      legend: 'never',
      logscale: chosen.log,
      dateWindow: chosen.zoom,
      xRangePad: 4,
      yRangePad: 6,
      xlabel: data.x,
      ylabel: data.y + (chosen.log ? ', log scale' : ''),
      gridLineColor: ink('--line'),
      axisLineColor: ink('--muted'),
      axes: {
        x: { axisLabelFormatter: count, drawGrid: false },
        y: { axisLabelFormatter: number, axisLabelWidth: 76 },
      },
      interactionModel: interaction(),
      highlightCallback: (event, x) => show(x),
      unhighlightCallback: () => show(null),
      zoomCallback: () => {
        chosen.zoom = graph.isZoomed('x') ? graph.xAxisRange() : null;
        keep(title, chosen);
        back.hidden = !graph.isZoomed();
      },
    });
    function redraw() {
      keep(title, chosen);
      graph.updateOptions({
        file: prepare(),
        logscale: chosen.log,
        valueRange: null,
        ylabel: data.y + (chosen.log ? ', log scale' : ''),
        gridLineColor: ink('--line'),
        axisLineColor: ink('--muted'),
      });
    }

    const logLabel = element(switches, 'label');
    const log = element(logLabel, 'input');
    logLabel.append('log axis');
    log.type = 'checkbox';
    log.checked = chosen.log;
    log.disabled = !all.some((line) => line.y.some((y) => y > 0));
    log.addEventListener('change', () => {
      chosen.log = log.checked;
      redraw();
    });
    if (!data.marks) {
      const label = element(switches, 'label', 'mean of');
      const width = element(label, 'select');
      for (const n of [1, 5, 20, 50]) element(width, 'option', n === 1 ? '1 point' : n + ' points').value = n;
      width.value = chosen.smooth;
      width.addEventListener('change', () => {
        chosen.smooth = Number(width.value);
        redraw();
      });
    }
    const back = element(switches, 'button', 'whole chart');
    back.type = 'button';
    back.hidden = chosen.zoom === null;
    back.addEventListener('click', () => graph.resetZoom());
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
    show(null);
  }

  for (const figure of document.querySelectorAll('figure.chart'))
    if (figure.querySelector('script')) makeLive(figure);
})();
