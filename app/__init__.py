"""The program itself: settings, service layer, command line and Gradio user interface.

Everything below this package is a library; only here are arguments parsed, seeds set, logs sent to the console and
text printed. Nothing imports ``app``.
"""
