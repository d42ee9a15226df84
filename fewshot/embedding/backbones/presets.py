"""Short names of published networks whose weights come from the hub; size and normalisation are those of timm."""

from __future__ import annotations

#: timm's names by ours. DINOv2 takes 518 pixels a side, unless another multiple of 14 is asked for. The weights of
#: DINOv3 have a licence of their own.
PRESETS = {
    "clip-base": "vit_base_patch32_clip_224.openai",
    "clip-large": "vit_large_patch14_clip_224.openai",
    "siglip-base": "vit_base_patch16_siglip_224.webli",
    "siglip2-base": "vit_base_patch16_siglip_224.v2_webli",
    "dinov2-small": "vit_small_patch14_dinov2.lvd142m",
    "dinov2-base": "vit_base_patch14_dinov2.lvd142m",
    "dinov2-large": "vit_large_patch14_dinov2.lvd142m",
    "dinov3-small": "vit_small_patch16_dinov3.lvd1689m",
    "dinov3-base": "vit_base_patch16_dinov3.lvd1689m",
    "dinov3-convnext": "convnext_tiny.dinov3_lvd1689m",
}


def located(name: str, pretrained: bool, weights: str | None) -> tuple[str, bool]:
    """Return a backbone by timm's name, and whether its weights come from the hub: those of a preset do by default.

    Examples
    --------
    >>> located("clip-base", False, None), located("resnet18", False, None)
    (('vit_base_patch32_clip_224.openai', True), ('resnet18', False))
    """
    return PRESETS.get(name, name), pretrained or (name in PRESETS and weights is None)
