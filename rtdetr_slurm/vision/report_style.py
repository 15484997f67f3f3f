"""How the charts and pictures of report.html look; the rest is as in all reports."""

STYLE = """
:root { --truth: #00b7c7; --missed: #f2a900; --right: #2fae4a; --wrong: #e5383b; }
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
