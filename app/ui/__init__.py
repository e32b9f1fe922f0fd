"""The Gradio user interface, one file a tab. Importing this package imports Gradio; the command line does so late."""
