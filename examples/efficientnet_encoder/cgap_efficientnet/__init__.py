"""EfficientNet-lite0 as two encoders: with ImageNet weights, and the same network with random ones. No torch here."""

from compression_gap.encoders.registry import EncoderEntry

IMAGENET = EncoderEntry("cgap_efficientnet.encoder:imagenet", forms=("efficientnet-lite0",))
RANDOM = EncoderEntry("cgap_efficientnet.encoder:random", forms=("efficientnet-lite0-random",))
