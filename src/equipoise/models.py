"""Models by name: what a command would else ask for one by one, from the configuration that each was published with.

    equipoise plan counts.json --model deepseek-v3 --ranks 32 --nodes 4 --slots 288

Bytes are those of the three matrices of one expert in one layer, in the number format that the model was published in,
with the scales of block-quantised formats; other parts of an expert are none, but for gpt-oss, which has biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equipoise.arguments import as_instance
from equipoise.errors import UnknownNameError, listed, shown

__all__ = ["MODELS", "Model", "find_model"]

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Format:
    """How weights are kept: bits of each number, and bytes of the scale that each block of them shares."""

    name: str
    bits: float
    block: int = 0
    bytes_per_scale: int = 0


BF16 = Format("bf16", 16)
FP8 = Format("fp8", 8, 128 * 128, 4)
MXFP4 = Format("mxfp4", 4, 32, 1)


@dataclass(frozen=True)
class Model:
    """A row: the mixture-of-experts layers of one model.

    Attributes
    ----------
    name : str
    repository : str
        Where its configuration is published.
    num_layers, first_layer : int
        Its MoE layers, and the model's id of the first. ``every`` is the step from one to the next.
    num_experts, experts_per_token : int
    num_expert_groups : int or None
        Groups that its router limits tokens to, None if there are none.
    hidden, intermediate : int
        Width of a token, and of one expert.
    format : Format
    biases : int
        Bytes of one expert beside its matrices.
    """

    name: str
    repository: str
    num_layers: int
    first_layer: int
    num_experts: int
    experts_per_token: int
    num_expert_groups: int | None
    hidden: int
    intermediate: int
    format: Format
    every: int = 1
    biases: int = 0

    @property
    def bytes_per_expert(self) -> int:
        """Size of one expert's weights in one layer.

        >>> find_model("deepseek-v3").bytes_per_expert
        44050944
        """
        numbers = 3 * self.hidden * self.intermediate
        scales = numbers // self.format.block * self.format.bytes_per_scale if self.format.block else 0
        return round(numbers * self.format.bits / 8) + scales + self.biases

    @property
    def source(self) -> str:
        """The page that says so."""
        return f"{HUB}/{self.repository}/blob/main/config.json"


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("deepseek-v3", "deepseek-ai/DeepSeek-V3", 58, 3, 256, 8, 8, 7168, 2048, FP8),
        Model("deepseek-r1", "deepseek-ai/DeepSeek-R1", 58, 3, 256, 8, 8, 7168, 2048, FP8),
        Model("deepseek-v2", "deepseek-ai/DeepSeek-V2", 59, 1, 160, 6, 8, 5120, 1536, BF16),
        Model("deepseek-v2-lite", "deepseek-ai/DeepSeek-V2-Lite", 26, 1, 64, 6, None, 2048, 1408, BF16),
        Model("kimi-k2", "moonshotai/Kimi-K2-Instruct", 60, 1, 384, 8, None, 7168, 2048, FP8),
        Model("qwen3-235b", "Qwen/Qwen3-235B-A22B", 94, 0, 128, 8, None, 4096, 1536, BF16),
        Model("qwen3-30b", "Qwen/Qwen3-30B-A3B", 48, 0, 128, 8, None, 2048, 768, BF16),
        Model("qwen3-coder-480b", "Qwen/Qwen3-Coder-480B-A35B-Instruct", 62, 0, 160, 8, None, 6144, 2560, BF16),
        Model("qwen3-next-80b", "Qwen/Qwen3-Next-80B-A3B-Instruct", 48, 0, 512, 10, None, 2048, 512, BF16),
        Model("glm-4.5", "zai-org/GLM-4.5", 89, 3, 160, 8, None, 5120, 1536, BF16),
        Model("gpt-oss-120b", "openai/gpt-oss-120b", 36, 0, 128, 4, None, 2880, 2880, MXFP4, biases=3 * 2880 * 2),
        Model("gpt-oss-20b", "openai/gpt-oss-20b", 24, 0, 32, 4, None, 2880, 2880, MXFP4, biases=3 * 2880 * 2),
        Model("llama-4-maverick", "meta-llama/Llama-4-Maverick-17B-128E", 24, 1, 128, 1, None, 5120, 8192, BF16, 2),
        Model("mixtral-8x7b", "mistralai/Mixtral-8x7B-v0.1", 32, 0, 8, 2, None, 4096, 14336, BF16),
    )
}
"""Every model that ``--model`` knows; another is a row here."""


def find_model(name: Any) -> Model:
    """Return the row called ``name``, whatever its case.

    Raises
    ------
    UnknownNameError
        If there is none.

    Examples
    --------
    >>> find_model("Kimi-K2").num_experts
    384
    """
    row = MODELS.get(as_instance(name, str, "model", f"a name such as {listed(MODELS, 2)}").lower())
    if row is None:
        raise UnknownNameError(f"there is no model {shown(name)}; the models are {listed(MODELS, len(MODELS))}.")
    return row
