"""The look: parchment and ink by day, a dim scriptorium by night; red is for what was written over.

Colours live in two places that must agree: the theme below, which Gradio turns into its own variables, and the
``--pal-*`` variables of ``style.css``, which our own HTML uses. No font is fetched from anywhere.
"""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base, Color, sizes

CSS_FILE = Path(__file__).with_name("style.css")
JS_FILE = Path(__file__).with_name("page.js")

SERIF = ("Iowan Old Style", "Palatino Linotype", "Palatino", "URW Palladio L", "Georgia", "serif")
SANS = ("Inter", "Segoe UI", "Helvetica Neue", "Liberation Sans", "DejaVu Sans", "sans-serif")
MONO = ("JetBrains Mono", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")

PARCHMENT = Color(
    name="parchment",
    c50="#fdfaf3",
    c100="#f8f2e4",
    c200="#efe6d2",
    c300="#e0d3b8",
    c400="#c4b393",
    c500="#9c8a6c",
    c600="#75664d",
    c700="#514635",
    c800="#2e2820",
    c900="#211c16",
    c950="#171310",
)
RUBRIC = Color(  # the red of a rubricated initial
    name="rubric",
    c50="#fbf1ee",
    c100="#f5ddd6",
    c200="#ebbcb0",
    c300="#dd9383",
    c400="#cc6b58",
    c500="#b24a37",
    c600="#973826",
    c700="#7c2d1f",
    c800="#65271c",
    c900="#54231a",
    c950="#2d0f0a",
)


def make_theme() -> Base:
    """The Gradio theme, complete for light and dark."""
    theme = Base(
        primary_hue=RUBRIC,
        secondary_hue=RUBRIC,
        neutral_hue=PARCHMENT,
        radius_size=sizes.radius_md,
        text_size=sizes.text_md,
        spacing_size=sizes.spacing_md,
        font=SANS,
        font_mono=MONO,
    )
    return theme.set(
        body_background_fill="#f6efdf",
        body_background_fill_dark="#171310",
        body_text_color="#2b241b",
        body_text_color_dark="#e9dfca",
        body_text_color_subdued="#6f614a",
        body_text_color_subdued_dark="#ab9d83",
        background_fill_primary="#fdf9f0",
        background_fill_primary_dark="#1f1a15",
        background_fill_secondary="#f8f1e2",
        background_fill_secondary_dark="#262019",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        input_border_width="1px",
        input_border_width_dark="1px",
        block_border_color="#e3d7bd",
        block_border_color_dark="#3a3127",
        border_color_primary="#e3d7bd",
        border_color_primary_dark="#3a3127",
        border_color_accent="#c9b78f",
        border_color_accent_dark="#5a4c3a",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="#6f614a",
        block_label_text_color_dark="#ab9d83",
        block_title_text_color="#6f614a",
        block_title_text_color_dark="#ab9d83",
        block_title_text_size="*text_sm",
        block_title_text_weight="500",
        block_info_text_color="#6f614a",
        block_info_text_color_dark="#ab9d83",
        input_background_fill="#fffdf7",
        input_background_fill_dark="#191510",
        input_background_fill_focus="#fffdf7",
        input_background_fill_focus_dark="#191510",
        input_border_color="#d9cbab",
        input_border_color_dark="#443a2e",
        input_border_color_focus="#b24a37",
        input_border_color_focus_dark="#cc6b58",
        input_shadow="none",
        input_shadow_focus="0 0 0 3px rgba(178, 74, 55, .15)",
        input_shadow_focus_dark="0 0 0 3px rgba(204, 107, 88, .22)",
        input_placeholder_color="#857556",
        input_placeholder_color_dark="#938468",
        button_primary_background_fill="#8a3222",
        button_primary_background_fill_hover="#9d3c2a",
        button_primary_background_fill_dark="#a8452f",
        button_primary_background_fill_hover_dark="#ba523b",
        button_primary_text_color="#fffaf0",
        button_primary_text_color_dark="#fffaf0",
        button_primary_border_color="transparent",
        button_secondary_background_fill="#f3e9d3",
        button_secondary_background_fill_hover="#ebdfc3",
        button_secondary_background_fill_dark="#2e271f",
        button_secondary_background_fill_hover_dark="#3a3127",
        button_secondary_text_color="#3a3023",
        button_secondary_text_color_dark="#e9dfca",
        button_secondary_border_color="#dccfb0",
        button_secondary_border_color_dark="#443a2e",
        button_cancel_background_fill="#fbf1ee",
        button_cancel_background_fill_dark="#2d1a15",
        button_cancel_text_color="#8a3222",
        button_cancel_text_color_dark="#e9a392",
        button_cancel_border_color="#dd9383",
        button_cancel_border_color_dark="#65271c",
        checkbox_background_color="#fffdf7",
        checkbox_background_color_dark="#191510",
        checkbox_border_color="#bba985",
        checkbox_border_color_dark="#5a4c3a",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_background_fill_hover="#f3e9d3",
        checkbox_label_background_fill_hover_dark="#2e271f",
        checkbox_label_background_fill_selected="#f5e4d8",
        checkbox_label_background_fill_selected_dark="#3a241c",
        checkbox_label_text_color="#3a3023",
        checkbox_label_text_color_dark="#e9dfca",
        link_text_color="#8a3222",
        link_text_color_dark="#e08f7b",
        color_accent_soft="#f5e4d8",
        color_accent_soft_dark="#3a241c",
        table_even_background_fill="#fdf9f0",
        table_even_background_fill_dark="#1f1a15",
        table_odd_background_fill="#f8f1e2",
        table_odd_background_fill_dark="#231d17",
        table_border_color="#e3d7bd",
        table_border_color_dark="#3a3127",
        code_background_fill="#f3e9d3",
        code_background_fill_dark="#2e271f",
        layout_gap="12px",
        block_padding="0px",
    )
