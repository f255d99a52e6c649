"""The plotting library as one script: Vega with vega-embed, out of the wheel of vl-convert-python, which carries their JavaScript. No network is used.

Vega draws ten thousand marks on a canvas in a frame, speaks ARIA, and can do without `eval`; the script is 0.9 MB (plotly's 4.8 MB, Bokeh's 1.3 MB).
"""

from __future__ import annotations

from functools import cache

from tracekit.formats.errors import InputError

SNIPPET = "window.vegaEmbed = vegaEmbed;"


@cache
def library() -> tuple[str, str]:
    """(Vega's version, its script). Errors: InputError where the extra is missing."""
    try:
        import vl_convert
    except ImportError:
        raise InputError('a report needs Vega, which is not installed; pip install "tracekit[report]"') from None
    script = str(vl_convert.javascript_bundle(SNIPPET))
    assert "</script" not in script.lower() and "<!--" not in script
    return str(vl_convert.get_vega_version()), script
