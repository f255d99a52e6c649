"""`tracekit report`: one page that shows a run, or two side by side, without a network. Design: docs/analysis.md "report"."""
