"""Encoders: resnet18, pretrained ones, the retina ladder, the limits blind and oracle; the feature cache."""

from .registry import check_encoder, is_prepared, is_trained, make_encoder

__all__ = ["check_encoder", "is_prepared", "is_trained", "make_encoder"]
