"""The commands of ``python -m app``, a file a group. None imports Gradio or torch before it has to."""
