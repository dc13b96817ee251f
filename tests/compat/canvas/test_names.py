from __future__ import annotations

from unittest.mock import patch

import pytest

from pgcelery.compat import canvas


@pytest.mark.parametrize("name", ["chain", "group", "chord", "Signature"])
def test_a_class_can_be_patched_by_its_dotted_name(name):
    with patch(f"pgcelery.compat.canvas.{name}.apply_async") as fake:
        assert getattr(canvas, name).apply_async is fake
