"""Family transformers: tiny checkpoints as `save_pretrained` writes them, against the library's own loading."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from pipeline import models
from pipeline.core.errors import Damaged, Mismatch, NotFound, PromptsTooLong, UserError
from pipeline.maths import zeroshot
from pipeline.models._kinds import projected
from pipeline.models.transformers import canonical, preprocessing
from pipeline.recipes import ModelEntry

from ..conftest import refused
from ..tiny import MEAN, PROMPTS, STD, WORDS, pixels, preprocessor_file, scaled, tokenizer_files

CPU = torch.device("cpu")
WIDTH = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**WIDTH, "image_size": 32, "patch_size": 16}
ROWS = len(WORDS) + 5  # one more than the tokenizer needs: AutoTokenizer adds a mask for SigLIP 2
TEXT = {
    **WIDTH,
    "vocab_size": ROWS,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
FLAVA = {"image_config": VISION, "text_config": TEXT, "multimodal_config": WIDTH, "projection_dim": 16}
KINDS = {
    "clip": lambda: (
        transformers.CLIPModel,
        transformers.CLIPConfig(
            text_config={**TEXT, "hidden_act": "quick_gelu"},
            vision_config={**VISION, "hidden_act": "quick_gelu"},
            projection_dim=16,
        ),
    ),
    "siglip": lambda: (
        transformers.SiglipModel,
        transformers.SiglipConfig(text_config={**TEXT, "projection_size": 32}, vision_config=VISION),
    ),
    "siglip2": lambda: (
        transformers.Siglip2Model,
        transformers.Siglip2Config(
            text_config={**TEXT, "projection_size": 32}, vision_config={**WIDTH, "num_patches": 4, "patch_size": 16}
        ),
    ),
    "align": lambda: (
        transformers.AlignModel,
        transformers.AlignConfig(
            text_config={**TEXT, "max_position_embeddings": 64},
            vision_config={"hidden_dim": 32, "image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.1},
            projection_dim=80,
        ),
    ),  # what the rounded width of the last block comes to
    "flava": lambda: (transformers.FlavaModel, transformers.FlavaConfig(**FLAVA)),
    "blip-2": lambda: (
        transformers.Blip2ForImageTextRetrieval,
        transformers.Blip2Config(
            vision_config=VISION,
            num_query_tokens=3,
            image_text_hidden_size=16,
            qformer_config={**TEXT, "encoder_hidden_size": 32, "use_qformer_text_input": True},
        ),
    ),
}


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(3)
    for name, value in model.named_parameters():
        if value.numel() > 1:
            torch.nn.init.normal_(value, mean=0.5 if "norm" in name.lower() and value.ndim == 1 else 0.0, std=0.1)
    for name, value in {"logit_scale": 3.0, "temperature": 0.05, "logit_bias": -4.0}.items():
        if hasattr(model, name):
            torch.nn.init.constant_(getattr(model, name), value)
    return model.eval()


def checkpoint(folder, kind: str):
    """A folder as the hub has it, and the model that was saved."""
    architecture, config = KINDS[kind]()
    model = randomised(architecture(config))
    model.save_pretrained(folder)
    tokenizer_files(folder)
    preprocessor_file(folder, 32, **({"max_num_patches": 4, "patch_size": 16} if kind == "siglip2" else {}))
    return model


def entry(folder, **more) -> ModelEntry:
    return ModelEntry.parse({"family": "transformers", "weights": str(folder), "preprocess": "x", **more}, "m")


def reference(kind: str, folder):
    """(image features, text features, logits per image) as the library computes them from the folder."""
    model = getattr(transformers, KINDS[kind]()[0].__name__).from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    padded = kind in ("siglip", "siglip2")
    ids = tokens(PROMPTS, padding="max_length" if padded else True, return_tensors="pt")
    inputs = {"input_ids": ids["input_ids"]} | ({} if padded else {"attention_mask": ids["attention_mask"]})
    images = {"pixel_values": scaled(pixels(32))}
    if kind == "siglip2":
        processor = transformers.Siglip2ImageProcessor(
            image_mean=MEAN, image_std=STD, max_num_patches=4, do_resize=True
        )
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels(32)]
        images = dict(processor(pictures, return_tensors="pt"))
    with torch.inference_mode():
        if kind == "blip-2":
            prompts = [{key: ids[i : i + 1].expand(3, -1) for key, ids in inputs.items()} for i in range(3)]
            outputs = [model(**images, **prompt) for prompt in prompts]
            logits = torch.stack([output.logits_per_image[:, 0] for output in outputs], dim=1)
            return outputs[0].image_embeds, torch.stack([o.text_embeds[0] for o in outputs]), logits
        of_images, of_text = projected(model.get_image_features(**images)), projected(model.get_text_features(**inputs))
        if kind == "flava":
            of_images, of_text = of_images[:, 0], of_text[:, 0]
            return (
                of_images,
                of_text,
                model.logit_scale.exp() * zeroshot.normalise(of_images) @ zeroshot.normalise(of_text).T,
            )
        return of_images, of_text, model(**images, **inputs).logits_per_image


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_probabilities_are_the_librarys(kind, tmp_path):
    checkpoint(tmp_path, kind)
    image = models.load("m", entry(tmp_path, logit_scale=1.0), tmp_path, "image", CPU, "fp32")
    text = models.load("m", entry(tmp_path, logit_scale=1.0), tmp_path, "text", CPU, "fp32")
    of_images, of_text, logits = reference(kind, tmp_path)
    found = image.encode_image(pixels(32)), text.encode_text(PROMPTS)
    torch.testing.assert_close(found[0], zeroshot.normalise(of_images), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1], zeroshot.normalise(of_text), atol=1e-4, rtol=0)
    # temperature, exp of the scale, a bias that cancels, and the best of BLIP-2's queries
    probs = zeroshot.prompt_probs(*found, text.logit_scale)
    torch.testing.assert_close(probs, logits.softmax(1), atol=1e-4, rtol=0)
    if "siglip" in kind:
        sigmoid = (image.logit_scale * found[0] @ found[1].T + image.logit_bias).sigmoid()
        torch.testing.assert_close(sigmoid, logits.sigmoid(), atol=1e-4, rtol=0)
    else:
        assert image.logit_bias is None
    assert found[0].shape == ((3, 3, 16) if kind == "blip-2" else (3, found[1].shape[1]))
    assert (image.image_size, image.resize_mode, text.dtype) == (32, "squash", "fp32")
    torch.testing.assert_close(torch.tensor(image.mean), torch.tensor(MEAN))


@pytest.mark.parametrize("kind", KINDS)
def test_only_one_tower_is_materialised(kind, tmp_path):
    whole = {name for name, _ in checkpoint(tmp_path, kind).named_parameters()}
    image, text = (models.load("m", entry(tmp_path), tmp_path, tower, CPU, "fp32") for tower in ("image", "text"))
    of_image, of_text = ({name for name, _ in tower.module.named_parameters()} for tower in (image, text))
    shared = {name for name in of_image & of_text if not name.startswith("qformer.")}
    assert of_image and of_text and not shared
    assert not any(name.startswith("vision") or name.startswith("image") for name in of_text)
    assert of_image | of_text < whole
    with pytest.raises(AttributeError):
        image.encode_text(PROMPTS)


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_sigmoid_models_get_canonical_text(kind, tmp_path):
    checkpoint(tmp_path, kind)
    text = models.load("m", entry(tmp_path), tmp_path, "text", CPU, "fp32")
    loud = text.encode_text([f"  {prompt.upper()}!?" for prompt in PROMPTS])
    torch.testing.assert_close(loud, text.encode_text(PROMPTS))
    assert text.tokenizer.encode(["dog"])["input_ids"].shape == (1, 16), "padded to the context length, not masked"


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_close(kind, dtype, tmp_path):
    checkpoint(tmp_path, kind)
    for tower in ("image", "text"):
        encoded = []
        for precision in ("fp32", dtype):
            model = models.load("m", entry(tmp_path), tmp_path, tower, CPU, precision)
            encoded.append(model.encode_image(pixels(32)) if tower == "image" else model.encode_text(PROMPTS))
        assert (encoded[0] * encoded[1]).sum(-1).min() > 0.99


def test_flava_is_found_inside_the_published_pretraining_checkpoint(tmp_path):
    inner = checkpoint(tmp_path, "flava")
    codebook = {"num_hidden_layers": 1, "hidden_size": 8, "num_groups": 1, "num_blocks_per_group": 1, "vocab_size": 8}
    config = transformers.FlavaConfig(**FLAVA, image_codebook_config=codebook)
    whole = transformers.FlavaForPreTraining(config)
    whole.flava.load_state_dict(inner.state_dict())
    expected = models.load("m", entry(tmp_path), tmp_path, "image", CPU, "fp32").encode_image(pixels(32))
    whole.save_pretrained(tmp_path)
    assert any(key.startswith("image_codebook.") for key in whole.state_dict())
    found = models.load("m", entry(tmp_path), tmp_path, "image", CPU, "fp32").encode_image(pixels(32))
    torch.testing.assert_close(found, expected)


def test_a_sharded_checkpoint(tmp_path):
    model = checkpoint(tmp_path, "clip")
    expected = models.load("m", entry(tmp_path), tmp_path, "text", CPU, "fp32").encode_text(PROMPTS)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    found = models.load("m", entry(tmp_path), tmp_path, "text", CPU, "fp32").encode_text(PROMPTS)
    torch.testing.assert_close(found, expected)


def test_preprocessing_of_published_processors_equals_the_librarys():
    """ALIGN scales to -1..1 and crops, CLIP resizes the shorter side: compared on pixels with the library."""
    picture = Image.fromarray(pixels(64, 1)[0].permute(1, 2, 0).numpy())
    align = transformers.EfficientNetImageProcessor(
        do_center_crop=True,
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        do_normalize=False,
        include_top=False,
        size={"height": 64, "width": 64},
        crop_size={"height": 64, "width": 64},
    )
    clip = transformers.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    for processor, mode in ((align, "squash"), (clip, "shortest")):
        facts = preprocessing(json.loads(processor.to_json_string()))
        expected = processor(picture, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(scaled(pixels(64, 1), facts.mean, facts.std), expected, atol=1e-5, rtol=0)
        assert (facts.size, facts.resize_mode) == (64, mode)


@pytest.mark.parametrize(
    "named", [{"image_processor_type": "FlavaImageProcessor"}, {"feature_extractor_type": "FlavaFeatureExtractor"}, {}]
)
def test_a_size_that_is_one_number_means_what_the_processors_class_means(named, tmp_path):
    """FLAVA's makes a square of it, CLIP's the shortest edge: the same file, seen by different classes."""
    config = {"size": 32, "crop_size": 32, "do_center_crop": True, "do_resize": True, "image_mean": MEAN}
    picture = Image.fromarray(pixels(48, 1)[0, :, :, :40].permute(1, 2, 0).numpy())
    for kind, mode in (("flava", "squash"), ("clip", "shortest")):
        folder = tmp_path / kind
        checkpoint(folder, kind)
        more = named if kind == "flava" else {}
        (folder / "preprocessor_config.json").write_text(json.dumps({**config, "image_std": STD, **more}))
        image = models.load("m", entry(folder), tmp_path, "image", CPU, "fp32")
        assert (image.image_size, image.resize_mode) == (32, mode)
        seen = transformers.AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")["pixel_values"]
        by_hand = picture.resize((32, 32) if mode == "squash" else (32, 38), Image.Resampling.BICUBIC)
        top = (by_hand.height - 32) // 2
        by_hand = torch.tensor(np.array(by_hand.crop((0, top, 32, top + 32)))).permute(2, 0, 1)[None]
        assert (seen - scaled(by_hand)).abs().mean() < 0.05, "and that is what its pixels are"


def test_no_processor_of_the_library(tmp_path):
    checkpoint(tmp_path, "clip")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Mine", "size": 32}))
    with refused(Damaged, "preprocessor_config.json") as error:
        models.load("m", entry(tmp_path), tmp_path, "image", CPU, "fp32")
    assert "\n" not in str(error.value)


def test_texts_of_sigmoid_models_are_read_as_their_authors_evaluate_them():
    """As the library's canonicalisation, which is the evaluator's: case, punctuation, underscores, spaces."""
    from open_clip.tokenizer import canonicalize_text

    for prompt in (
        "A photo of a Snake_Case name",
        "  it's   well-known, isn't\tit?! ",
        "__init__ (of U.S. origin): 50% & more",
        "_",
        "ÜBER straße, İstanbul; 日本。",
    ):
        assert canonical(prompt) == canonicalize_text(prompt)
    assert canonical("A snake_case, Name!") == "a snake case name"


def test_an_underscore_is_a_space_for_the_text_tower(tmp_path):
    checkpoint(tmp_path, "siglip2")
    text = models.load("m", entry(tmp_path), tmp_path, "text", CPU, "fp32")
    torch.testing.assert_close(text.encode_text(["The_RED house."]), text.encode_text(["the red house"]))


def test_features_are_taken_from_either_form_of_output():
    """A tensor in transformers 4, an object with the projected features in 5."""
    features = torch.randn(2, 3)
    output = transformers.modeling_outputs.BaseModelOutputWithPooling(pooler_output=features)
    assert projected(features) is features
    assert projected(output) is features


def test_mistakes_are_told(tmp_path):
    checkpoint(tmp_path, "clip")

    def refusal(kind: type[UserError], *parts: str, **more) -> None:
        with refused(kind, *parts):
            models.load("m", entry(tmp_path, **more), tmp_path, "text", CPU, "fp32")

    refusal(Mismatch, "mean: [0.1, 0.1, 0.1]", mean=[0.1, 0.1, 0.1])
    refusal(Mismatch, "resize_mode: shortest", resize_mode="shortest")
    refusal(Mismatch, "activation", "quick_gelu: false", quick_gelu=False)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**config, "size": {"height": 48, "width": 48}}))
    refusal(Mismatch, "position_embedding: preprocessor_config.json", "48", "32")
    (tmp_path / "preprocessor_config.json").unlink()
    refusal(UserError, "size, mean, std, resize_mode")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refusal(NotFound, "'bert'")
    (tmp_path / "config.json").unlink()
    refusal(Damaged, str(tmp_path), "config.json")


def test_fewer_tokens_may_be_asked_for_but_never_more_than_there_are(tmp_path):
    checkpoint(tmp_path, "clip")
    short = models.load("m", entry(tmp_path, context_length=7), tmp_path, "text", CPU, "fp32")
    whole = models.load("m", entry(tmp_path), tmp_path, "text", CPU, "fp32")
    assert (short.context_length, whole.context_length) == (7, 16)
    torch.testing.assert_close(short.encode_text(PROMPTS[:2]), whole.encode_text(PROMPTS[:2]))
    with refused(PromptsTooLong, "7 tokens", "loses 1"):
        short.encode_text(PROMPTS)
    with refused(Mismatch, "context_length: 17", "16"):
        models.load("m", entry(tmp_path, context_length=17), tmp_path, "text", CPU, "fp32")
