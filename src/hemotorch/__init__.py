"""hemotorch: networks that outline bleeding inside the skull on head CT. Research use only, not a medical device."""

NOTICE = "Research use only, not a medical device."

__version__ = "0.1.0"
