"""How report.html looks, on a bright and on a dark screen."""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --truth: #00b7c7;
  --missed: #f2a900; --right: #2fae4a; --wrong: #e5383b; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { margin-top: 2.4rem; font-size: 1.2rem; }
p, figcaption { max-width: 75ch; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  unicode-bidi: isolate; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
.numbers div { background: var(--soft); border-radius: 8px; padding: .6rem 1rem; }
.numbers b { display: block; font-size: 1.5rem; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; unicode-bidi: isolate; }
svg .grid { stroke: var(--line); } svg .cell { stroke: var(--line); }
svg circle:not([fill]) { fill: currentColor; opacity: .55; } svg text.on-dark { fill: #fff; }
.chart { max-width: 100%; height: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr));
  gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.picture { position: relative; } .picture img { display: block; width: 100%; height: auto; }
.picture svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: hidden; }
.picture rect { fill: transparent; stroke-width: 2.5; vector-effect: non-scaling-stroke; }
.picture rect.truth { stroke: var(--truth); stroke-dasharray: 7 4; }
.picture rect.missed { stroke: var(--missed); stroke-dasharray: 7 4; }
.picture rect.right { stroke: var(--right); } .picture rect.wrong { stroke: var(--wrong); }
.picture text { fill: #fff; font-size: inherit; paint-order: stroke; stroke: #000b;
  stroke-width: .2em; }
.key.truth { border-bottom: 3px dashed var(--truth); }
label { white-space: nowrap; margin-right: 1rem; }
.key.missed { border-bottom: 3px dashed var(--missed); }
.key.right { border-bottom: 3px solid var(--right); }
.key.wrong { border-bottom: 3px solid var(--wrong); }
body:has(#no-truth:checked) .picture .truth { display: none; }
body:has(#no-missed:checked) .picture .missed { display: none; }
body:has(#no-right:checked) .picture .right { display: none; }
body:has(#no-wrong:checked) .picture .wrong { display: none; }
"""
