"""Image augmentation on whole batches, every image with its own draw.

The policies: ``flip`` is a horizontal flip; ``mild`` adds a weak colour jitter and a crop of at least three quarters of
the area; ``light`` the same with a crop of at least half of it; ``roclip`` is the policy of RoCLIP and
SAFECLIP (their released code: flip, RandomResizedCrop .08-1, ColorJitter .5/.5/.5/.1 with probability .8, greyscale .2,
Gaussian blur), with the blur's width as a share of the image side; ``auto`` is AutoAugment's policy for ImageNet (Cubuk et
al., CVPR 2019) as torchvision has it, which CleanCLIP uses.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from poisonbench.defense import ImageAugment

GREY = (0.299, 0.587, 0.114)


def augment(images: Tensor, policy: ImageAugment, rng: Generator) -> Tensor:
    """Augmented images.

    Args:
        images: uint8 or float in [0, 1], (b, 3, side, side), on the CPU or a GPU.
        policy: the name of the policy.
        rng: a CPU generator; the only source of randomness.

    Returns:
        float32 in [0, 1], same shape and device.
    """
    images = images.float().div(255) if images.dtype == torch.uint8 else images
    match policy:
        case "none":
            return images
        case "flip":
            return flip(images, rng)
        case "mild":
            return jitter(crop(images, rng, 0.75), rng, 0.3, 0.05, 0.8)
        case "light":
            return jitter(crop(images, rng, 0.5), rng, 0.3, 0.05, 0.8)
        case "roclip":
            return blur(greyscale(jitter(crop(images, rng, 0.08), rng, 0.5, 0.1, 0.8), rng, 0.2), rng)
        case "auto":
            return autoaugment(images, rng)


def _draw(images: Tensor, rng: Generator, low: float, high: float) -> Tensor:
    return (torch.rand(len(images), generator=rng) * (high - low) + low).to(images.device)


def flip(images: Tensor, rng: Generator) -> Tensor:
    """Mirror every image with probability one half."""
    chosen = _draw(images, rng, 0, 1) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, rng: Generator, smallest: float) -> Tensor:
    """Crop a region of ``smallest`` to 1 of the area (aspect 3/4 to 4/3), flip it half of the time, resize it back."""
    area, aspect = (
        _draw(images, rng, smallest, 1.0),
        _draw(images, rng, math.log(3 / 4), math.log(4 / 3)).exp(),
    )
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x = _draw(images, rng, -1, 1) * (1 - width)
    y = _draw(images, rng, -1, 1) * (1 - height)
    mirror = torch.where(_draw(images, rng, 0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 2] = width * mirror, x
    theta[:, 1, 1], theta[:, 1, 2] = height, y
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def jitter(images: Tensor, rng: Generator, strength: float, hue: float, chance: float) -> Tensor:
    """Brightness, contrast and saturation scaled by 1 +- strength and the hue turned by up to +- ``hue`` of a circle."""
    brightness, contrast, saturation = (
        _draw(images, rng, 1 - strength, 1 + strength)[:, None, None, None] for _ in range(3)
    )
    turned = torch.einsum(
        "bij,bjhw->bihw", _hue_rotation(_draw(images, rng, -hue, hue) * 2 * math.pi), images
    )
    mixed = (turned * brightness).clamp(0, 1)
    mixed = (_grey(mixed).mean(dim=(2, 3), keepdim=True) * (1 - contrast) + mixed * contrast).clamp(0, 1)
    mixed = (_grey(mixed) * (1 - saturation) + mixed * saturation).clamp(0, 1)
    return torch.where((_draw(images, rng, 0, 1) < chance)[:, None, None, None], mixed, images)


def greyscale(images: Tensor, rng: Generator, chance: float) -> Tensor:
    """Replace an image by its luma with probability ``chance``."""
    return torch.where(
        (_draw(images, rng, 0, 1) < chance)[:, None, None, None], _grey(images).expand_as(images), images
    )


def blur(images: Tensor, rng: Generator) -> Tensor:
    """Gaussian blur with a width drawn from 0.1 to 2 pixels of a 224-pixel side, scaled to the image's side."""
    side = images.shape[-1]
    radius = max(1, round(10 * side / 224))
    sigma = _draw(images, rng, 0.1, 2.0)[:, None] * side / 224
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=1).repeat_interleave(3, dim=0)
    flat = images.reshape(1, -1, side, side)
    flat = F.conv2d(
        F.pad(flat, (radius, radius, 0, 0), mode="reflect"), kernel[:, None, None, :], groups=len(kernel)
    )
    flat = F.conv2d(
        F.pad(flat, (0, 0, radius, radius), mode="reflect"), kernel[:, None, :, None], groups=len(kernel)
    )
    return flat.reshape(images.shape)


def autoaugment(images: Tensor, rng: Generator) -> Tensor:
    """One of AutoAugment's 25 ImageNet policies of two operations per image; pixels are rounded to bytes for it."""
    from torchvision.transforms import AutoAugment

    change = AutoAugment()
    pixels = images.mul(255).round().to(torch.uint8)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.default_generator.manual_seed(int(torch.randint(1 << 62, (), generator=rng)))
        return torch.stack([change(picture) for picture in pixels]).float().div(255)


def _grey(images: Tensor) -> Tensor:
    weights = images.new_tensor(GREY).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotation of the chroma plane of YIQ by ``angle`` radians, as (b, 3, 3) matrices on RGB."""
    to_yiq = angle.new_tensor([GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    turn = torch.zeros(len(angle), 3, 3, device=angle.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    rotation: Tensor = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return rotation
