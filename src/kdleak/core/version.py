"""The one version number: `kdleak.__version__`, `kdleak --version`, the wheel and every audit.json."""

__version__ = "0.1.0"
