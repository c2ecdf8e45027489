"""Every choice that OTCCLIP's reconstruction leaves open, with its default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from poisonbench.defense import DefenseConfig, ImageAugment, TextAugment
from poisonbench.defenses.otcclip.coupling import Gradient
from poisonbench.defenses.otcclip.looks import Name
from poisonbench.defenses.otcclip.losses import Form
from poisonbench.defenses.otcclip.transport import Backend


class OTCCLIPConfig(DefenseConfig):
    """Which captions are replaced, how the new ones are found, and what is minimised.

    Attributes:
        reassign: ``suspicious`` pairs only, or ``all`` pairs in every ``every``-th epoch (RoCLIP's schedule).
        every: K for ``all``.
        level: share of mismatched pairs that would pass as sound when the test begins.
        final_level: the same at the end of the run; the level moves linearly, as the test gains power.
        memory: how much of a row's evidence from earlier epochs is kept.
        warmup: share of the run in which all pairs are still trusted.
        judge: test the pairs on both halves of the image, either of which must fit (a local trigger is in one of them; two
            more forward passes), on the plain image (one), or on the augmented view (none).
        copies: how much k copies of a picture count in the losses: as ``one`` picture, or as ``many``.
        alike: how well pictures correlate, laid over each other, that are near copies for a scout; many of them are judged as
            one picture. 1 looks for none.
        regions: share of the visual tokens, those that fit worst, on which pairs are tested, so that one region cannot vouch
            for the rest, and new captions are searched with the mean of the regions; 1 trusts the whole image.
        outlying: how far above the median, in median absolute deviations, the pictures lie that a scout, the undefended
            model, suspects; 0 sends none.
        looks: the disturbed looks in which the scout sees every picture.
        burden: of the suspects' pairs the test lets only so much of its level pass, and warm-up trusts no suspect; 0 bars
            suspects for the whole run.
        graded: whether the level falls linearly from that of the median crowd to that of suspects, the stranger the crowd, or
            all but suspects have the whole level.
        hearing: a suspect's caption must fit the ``plain`` look, also the ``telling`` one, in which its crowd is strangest, or
            ``every`` look in which the scout saw its picture.
        crowds: neighbours per picture whose agreement the scout looks at, one number or several; few find rare triggers, many
            those that every kind of picture hosts.
        unanimity: crowds of pictures that a look moves alike are heard if their captions agree as much as those of this share of
            all such crowds; 1 looks for none.
        recurring: share of the sound pairs that are suspicious all the same, those with a region that recurs most in other,
            ill-fitting pairs; 0 looks for none.
        references: mismatched captions per image in the test of soundness.
        neighbours: similar sound pairs whose agreement counts in the test, as much as the own fit; 0 asks none.
        beta: weight of the global cosine beside the OT similarity, in tests and matching.
        eps: entropy of the transport plans.
        iterations: Sinkhorn iterations of the losses and the tests; matching goes on until its plans have converged.
        backend: who computes the plans.
        gradient: what the OT objectives differentiate, the transport cost or the entropic value (``coupling.similarity``).
        pool: captions in the pool.
        shortlist: match only among so many captions, the nearest by global cosine; 0 searches the whole pool, exactly.
        candidates: captions that a suspicious image is given; of several, the mean in the joint space, by their scores.
        weight: of re-captioned rows in the losses; 0 gives suspicious images no caption at all.
        bystanders: whether suspicious images without a caption are negatives of the others' captions all the same.
        transplant: share of the sound images whose later views host a recurring region of another image, so that what recurs
            comes with all kinds of captions; needs ``recurring`` and two views.
        views: augmented views of the images over which CLIP's loss is averaged.
        inter: weight of the inter-modal OT objective.
        intra: weight of the intra-modal OT objectives on second views of images and captions.
        negatives: other rows that the contrastive OT objectives rank against.
        form: contrastive or positive-pair OT objectives.
        images: image augmentation.
        texts: caption augmentation.
    """

    reassign: Literal["suspicious", "all"] = "suspicious"
    every: int = Field(2, ge=1)
    level: float = Field(0.75, gt=0, lt=1)
    final_level: float = Field(0.5, gt=0, lt=1)
    memory: float = Field(0.5, ge=0, lt=1)
    warmup: float = Field(0.05, ge=0, lt=1)
    judge: Literal["halves", "plain", "augmented"] = "plain"
    copies: Literal["one", "many"] = "one"
    alike: float = Field(0.93, ge=0, le=1)
    regions: float = Field(0.5, gt=0, le=1)
    outlying: float = Field(4.0, ge=0)
    looks: tuple[Name, ...] = Field(
        ("blurred", "grey", "stretched", "hardened", "turned", "upside_down"), min_length=1
    )
    burden: float = Field(0.1, ge=0, le=1)
    graded: bool = True
    hearing: Literal["plain", "telling", "every"] = "telling"
    crowds: tuple[Annotated[int, Field(ge=1)], ...] = Field((32, 64), min_length=1)
    unanimity: float = Field(0.9, ge=0, le=1)
    recurring: float = Field(0.02, ge=0, lt=1)
    references: int = Field(24, ge=4)
    neighbours: int = Field(0, ge=0)
    beta: float = Field(0.5, ge=0, le=1)
    eps: float = Field(0.1, ge=0.005)
    iterations: int = Field(10, ge=1)
    backend: Backend = "torch"
    gradient: Gradient = "detached"
    pool: int = Field(21845, ge=1)
    shortlist: int = Field(0, ge=0)
    candidates: int = Field(1, ge=1)
    weight: float = Field(0.2, ge=0)
    bystanders: bool = True
    transplant: float = Field(1.0, ge=0, le=1)
    views: int = Field(2, ge=1)
    inter: float = Field(0.5, ge=0)
    intra: float = Field(0.0, ge=0)
    negatives: int = Field(8, ge=1)
    form: Form = "contrastive"
    images: ImageAugment = "light"
    texts: TextAugment = "eda"
