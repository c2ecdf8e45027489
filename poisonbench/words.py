"""Numbers as people say them, on the terminal."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as people say them: 45s, 3m12s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def speed(per_second: float, unit: str) -> str:
    """How much is done in a second: 1,234 pairs/s, 0.32 pairs/s."""
    return f"{per_second:,.0f} {unit}/s" if per_second >= 9.5 else f"{per_second:.2g} {unit}/s"
