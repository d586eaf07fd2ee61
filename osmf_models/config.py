"""The settings of a training run: frozen dataclasses.

Which values go together belongs in `recipes.py`, replacing single fields in `overrides.py`; what the values do belongs
where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublishedConfig:
    """Published checkpoints that a model is put together from, and what of them is trained.

    Attributes:
        backbone_path: folder of a Qwen3-VL with its tokenizer.
        denoiser_path: folder of a Sana or Stable Diffusion 3 transformer (`transformer` of its pipeline).
        autoencoder_path: folder of the autoencoder that goes with it (`vae` of its pipeline).
        backbone_training, denoiser_training: `frozen`, `lora` or `whole`.
        lora_rank, lora_alpha: `r` of the additions to each layer, which are scaled by alpha / r.
    """

    backbone_path: str = ""
    denoiser_path: str = ""
    autoencoder_path: str = ""
    backbone_training: str = "lora"
    denoiser_training: str = "lora"
    lora_rank: int = 32
    lora_alpha: int = 32


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the group-aware multimodal model, everything built from scratch unless published parts are named.

    Attributes:
        published: published parts; with them of the sizes below only those of texts, group tokens, queries and
            connector count, and `num_heads` is the connector's.
        width: `D`, of the language model, the group tokens and the connector.
        num_heads: attention heads of every transformer but the denoiser.
        vision_layers, vision_patch_px: of the vision tower that reads the product picture.
        text_layers: of the language model.
        vocab_size: most entries of the tokenizer trained on the export's texts.
        num_title_tokens, num_description_tokens: longest title, and longest description of a group; the rest is cut.
        num_group_tokens, num_queries: `K` and `Q`.
        connector_layers: of the bidirectional encoder behind the language model.
        denoiser_layers, denoiser_heads, denoiser_head_width: of the diffusion transformer.
        patch_px: side of its patches.
        refine_channels: width of the convolutions that join its patches.
        refine_stride: side, in pixels, of the cells that those convolutions work on: s x s pixels are their channels,
            at 1 / s^2 of the memory for a given width. It divides `patch_px`, and its square `refine_channels`.
    """

    width: int = 96
    num_heads: int = 4
    vision_layers: int = 2
    vision_patch_px: int = 8
    text_layers: int = 2
    vocab_size: int = 1024
    num_title_tokens: int = 12
    num_description_tokens: int = 64
    num_group_tokens: int = 4
    num_queries: int = 8
    connector_layers: int = 2
    denoiser_layers: int = 4
    denoiser_heads: int = 4
    denoiser_head_width: int = 32
    patch_px: int = 4
    refine_channels: int = 32
    refine_stride: int = 1
    published: PublishedConfig | None = None


@dataclass(frozen=True)
class DataConfig:
    """How examples are drawn.

    Attributes:
        group_dropout, text_dropout: share of examples that see the null group, or no title.
        max_image_px: longest side of a picture that is decoded at all.
        num_cached_pictures: decoded pictures kept in memory, per kind.
        num_batches_ahead: batches, the same in any case, that threads draw while earlier ones are trained on.
        held_out_groups: ids of groups whose examples and pairs are not seen; a scope's root is one too.
        image_px: side of the pictures that the sizes are meant for; a benchmark makes such, an export brings its own.
    """

    group_dropout: float = 0.1
    text_dropout: float = 0.1
    max_image_px: int = 1024
    num_cached_pictures: int = 8192
    num_batches_ahead: int = 0
    held_out_groups: tuple[str, ...] = ()
    image_px: int = 32


@dataclass(frozen=True)
class TrainingConfig:
    """One optimisation.

    Attributes:
        seed: of every random draw; a draw depends on (seed, step, index in the global batch) only.
        num_steps: optimiser steps.
        batch_size: examples or pairs of one step over all ranks.
        learning_rate: peak, after a linear warm-up, before the linear decay to `final_learning_rate_share` of it.
        warmup_steps: length of the warm-up.
        gradient_clip: largest norm of the gradient.
        log_every, checkpoint_every: steps between two log lines, and between two checkpoints, 0 for none of these.
        max_skipped_steps: steps that may be skipped because their gradient is no finite number; one more ends the run.
        ema_decay: of the running average of the weights, which is handed over in their place; 0 hands over the weights.
    """

    seed: int = 0
    num_steps: int = 100
    batch_size: int = 16
    learning_rate: float = 1e-3
    final_learning_rate_share: float = 0.05
    warmup_steps: int = 10
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    log_every: int = 10
    checkpoint_every: int = 0
    max_skipped_steps: int = 10
    ema_decay: float = 0.0


@dataclass(frozen=True)
class RewardConfig:
    """The group reward model, and how it is fitted to pairs.

    Attributes:
        training: its optimisation; every `log_every` steps it is judged on split validation, and the best one is kept.
        label: the `strength` of the chosen one's lead: scores are log rates; or the `probability` that it is better.
        width: of its layers.
        dropout: share of the scene's statistics that a training step does not see.
    """

    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            num_steps=400, batch_size=256, learning_rate=3e-3, weight_decay=0.01, warmup_steps=40, log_every=20
        )
    )
    label: str = "strength"
    width: int = 32
    dropout: float = 0.3


@dataclass(frozen=True)
class PretrainingConfig:
    """What pretraining minimises and shows.

    Attributes:
        training: its optimisation.
        preference_sharpness: a group's examples show a picture in proportion to its rate there, to this power.
        comprehension_weight: weight of the next-token cross-entropy on the group's description.
        plan_weight: weight of the deviance of the pictures' looks under what is planned for the group.
        choice_weight: weight of the cross-entropy on which of two pictures the group prefers, and of looks' errors.
        choice_batch_size: rows of pictures of one step, over all ranks, that this is learned from; 0 leaves it out.
        num_choice_pictures: pictures of a row, each compared with each, at least 2.
        warmth_weight: weight of the part of a picture's error that is red against blue; 1 is the plain error.
        time_floor: an error at time t weighs 1 / max(t, floor)^2: 1 is the clean-image error, 0 the velocity error.
        num_grid_rows, num_grid_groups: products of the fixed sample grid, and groups for each.
        num_samplings: times in a training that pictures of each group are drawn, evenly spread, the last at its end.
        num_sampling_steps: solver steps behind the grid.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    preference_sharpness: float = 1.0
    comprehension_weight: float = 0.05
    plan_weight: float = 0.3
    choice_weight: float = 0.3
    choice_batch_size: int = 4
    num_choice_pictures: int = 8
    warmth_weight: float = 1.0
    time_floor: float = 0.1
    num_grid_rows: int = 4
    num_grid_groups: int = 6
    num_samplings: int = 1
    num_sampling_steps: int = 12

    def check(self) -> None:
        """Looks at values that the types allow.

        Raises:
            ValueError: when one is out of range.
        """
        for name in ("plan_weight", "choice_weight", "choice_batch_size", "warmth_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"pretraining.{name} {getattr(self, name)} must not be below 0.")
        for name, least in (("num_choice_pictures", 2), ("num_samplings", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"pretraining.{name} {getattr(self, name)} must be at least {least}.")


@dataclass(frozen=True)
class DpoConfig:
    """What Group-DPO minimises; `docs/group_dpo.md` explains it.

    Attributes:
        training: its optimisation.
        beta: multiplier in u = -beta/2 * D, D the difference of the error differences.
        preference_weight: weight of the preference loss; 0 leaves fine-tuning on the chosen pictures, a control.
        anchor_weight: weight of the policy's error on the chosen picture.
        rejected_safeguard: mu in (0, 1], progress on a chosen picture that the rejected one must leave; 0: no bound.
        contrast_weight: weight of the contrast of one picture under two groups that contradict each other.
        label: the target q: the `strength` of the chosen one's lead, or the `probability` that it is better.
        error_space: of the planned `look`, or of the `clean` image or `velocity` drawn by it.
        time_power: t = 1 - uniform^power; above 1 it moves the draws to high noise (t = 1 is noise).
        pair_groups: whom a pair speaks for: its `own` group; controls are the `null` group with the scope roots'
            pairs (one size fits all) and a group of its scope drawn afresh (`shuffled`).
        has_unsure_pairs: learn from creatives of unsure order too, by how little their rates differ; label `strength`.
        is_group_balanced: draw groups evenly, then one of the group's pairs: every group weighs the same.
        is_adapters_only: LoRA's additions alone are trained; all else stays as pretraining left it.
        reference: its errors are `cached` before training, or a copy runs `forward`, or the policy with `adapter_off`.
        num_evaluation_pairs: held-out pairs judged before and after.
        num_evaluation_draws: shared draws of noise and time per judged pair.
        evaluate_every: steps between two judgements that decide which weights are kept; 0 keeps the last.
        patience: judgements without a better one that end the training; 0 ends it never.
        chosen_error_slack: share by which pictures' chosen error may exceed the reference's in weights worth keeping.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    beta: float = 0.5
    preference_weight: float = 1.0
    anchor_weight: float = 0.0
    rejected_safeguard: float = 0.0
    contrast_weight: float = 0.0
    label: str = "strength"
    error_space: str = "look"
    time_power: float = 2.0
    pair_groups: str = "own"
    has_unsure_pairs: bool = True
    is_group_balanced: bool = False
    is_adapters_only: bool = False
    reference: str = "cached"
    num_evaluation_pairs: int = 64
    num_evaluation_draws: int = 16
    evaluate_every: int = 0
    patience: int = 0
    chosen_error_slack: float = 0.02

    def check(self) -> None:
        """Looks at values that the types allow.

        Raises:
            ValueError: when one is out of range, or two do not go together.
        """
        if not 0.0 <= self.rejected_safeguard <= 1.0:
            raise ValueError(f"dpo.rejected_safeguard {self.rejected_safeguard} must lie in [0, 1].")
        for name in ("contrast_weight", "chosen_error_slack", "evaluate_every", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"dpo.{name} {getattr(self, name)} must not be below 0.")
        if self.preference_weight == 0.0 and self.anchor_weight == 0.0:
            raise ValueError("dpo.preference_weight and dpo.anchor_weight are both 0: nothing is left to minimise.")
        if self.contrast_weight > 0.0 and self.pair_groups != "own":
            raise ValueError("dpo.contrast_weight needs each pair's own group: dpo.pair_groups=own.")
        if self.has_unsure_pairs and self.label != "strength":
            raise ValueError("dpo.has_unsure_pairs needs dpo.label=strength: set it to false for another label.")
        if self.patience and not self.evaluate_every:
            raise ValueError("dpo.patience counts judgements: set dpo.evaluate_every too.")


@dataclass(frozen=True)
class ZeroConfig:
    """How the training is spread over processes.

    Attributes:
        stage: ZeRO stage: 0 replicates, 1 shards optimiser state, 2 gradients too, 3 parameters too.
        precision: of weights and activations.
    """

    stage: int = 1
    precision: str = "fp32"


@dataclass(frozen=True)
class ExecutionConfig:
    """How the model's repeated layers are run: what is traded for speed and memory, not what is learned.

    Attributes:
        is_compiled: by `torch.compile`, one graph for each kind of layer, for fixed shapes.
        is_checkpointed: compute activations again in the backward pass: less memory, about a third more work.
    """

    is_compiled: bool = False
    is_checkpointed: bool = False


@dataclass(frozen=True)
class RunConfig:
    """Everything that a training run depends on, apart from its data."""

    recipe: str
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
