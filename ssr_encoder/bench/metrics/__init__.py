"""Metrics of a result, each with the name of its backbone and its preprocessing."""

from .case import Case, CaseMetric, Metric
from .distributions import fid, kid
from .exclusive import ExclusiveImage, ExclusiveText
from .masked import MaSC, MaSCPrompt, MaskedSimilarity
from .oracle import AskedMetric, OracleMetric, Verdicts
from .pixels import LPIPS, PSNR, SSIM
from .regions import GroundedRegions, OracleRegions, Regions, cut_out
from .similarity import ImageSimilarity, TextSimilarity
from .table import default_metrics, load_metrics, metric_names
from .zero_shot import ZeroShotTop1, class_embeddings, imagenet_classes, imagenet_templates

__all__ = [
    "LPIPS",
    "PSNR",
    "SSIM",
    "AskedMetric",
    "Case",
    "CaseMetric",
    "ExclusiveImage",
    "ExclusiveText",
    "GroundedRegions",
    "ImageSimilarity",
    "MaSC",
    "MaSCPrompt",
    "MaskedSimilarity",
    "Metric",
    "OracleMetric",
    "OracleRegions",
    "Regions",
    "TextSimilarity",
    "Verdicts",
    "ZeroShotTop1",
    "class_embeddings",
    "cut_out",
    "default_metrics",
    "fid",
    "imagenet_classes",
    "imagenet_templates",
    "kid",
    "load_metrics",
    "metric_names",
]
