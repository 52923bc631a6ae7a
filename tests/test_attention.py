"""Subject cross-attention: the formula with scales, windows and regions."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel

from ssr_encoder import SSRError
from ssr_encoder.attention import install, region_weights
from ssr_encoder.packing import OFF, SubjectRows

NAME = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"  # 64 wide, 8 x 8 queries
T, D = 24, 32  # tokens a subject, their width


@pytest.fixture
def installed(unet, subject_config) -> UNet2DConditionModel:
    return install(unet, subject_config.layers).requires_grad_(False)


@pytest.fixture
def given():
    """Latents, text embeddings and two subjects' tokens, one row."""
    return torch.randn(1, 4, 16, 16), torch.randn(1, 12, D), torch.randn(1, 2, T, D)


def run(unet, given, pack=None, timestep=500, regions=None):
    latents, text, _ = given
    more = {} if pack is None else {"added_cond_kwargs": {"image_embeds": [pack[None]]}}
    if regions is not None:
        more["cross_attention_kwargs"] = {"ip_adapter_masks": [regions]}
    with torch.no_grad():
        return unet(latents, timestep, text, **more).sample


def layer(unet, hidden, text, pack=None, progress=0.5, regions=None):
    """The output of one cross-attention, given (1, Q, width) queries."""
    attn = unet.get_submodule(NAME)
    rows = [] if pack is None else [SubjectRows(pack, torch.tensor(progress), unet.encoder_hid_proj.widths)]
    more = {} if regions is None else {"ip_adapter_masks": [regions]}
    with torch.no_grad():
        return attn(hidden, encoder_hidden_states=(text, rows), **more)


def formula(unet, key_values, hidden, text, tokens, weight):
    """``to_out(Attn_text + sum_i w_i P_i V_i)``, P = softmax of (q k + log w_i); weight (Q, N), in float64."""
    attn = unet.get_submodule(NAME)
    wide = {n: w.double() for n, w in attn.state_dict().items()}
    w_k, w_v = (part[NAME.replace(".", "/")].weight.double() for part in (key_values.to_k, key_values.to_v))
    query, text, tokens = hidden[0].double() @ wide["to_q.weight"].T, text[0].double(), tokens[0].double()
    size, out = query.shape[1] // attn.heads, []
    for head in range(attn.heads):
        part = slice(head * size, (head + 1) * size)
        q = query[:, part] / size**0.5
        scores = torch.softmax(q @ (text @ wide["to_k.weight"][part].T).T, -1)
        read = scores @ (text @ wide["to_v.weight"][part].T)
        raw = torch.stack([q @ (subject @ w_k[part].T).T for subject in tokens])  # (N, Q, T)
        mass = raw.exp() * weight.double().T[..., None]
        share = mass / mass.sum((0, 2), keepdim=True).clamp(min=1e-300)
        for i, subject in enumerate(tokens):
            read = read + weight[:, i, None].double() * (share[i] @ (subject @ w_v[part].T))
        out.append(read)
    return (torch.cat(out, -1) @ wide["to_out.0.weight"].T + wide["to_out.0.bias"])[None].float()


# -- scales
def test_equal_scales_are_joint_attention(installed, subject_model, given):
    _, text, tokens = given
    hidden, kv = torch.randn(1, 64, 64), subject_model.key_values
    attn = installed.get_submodule(NAME)

    def read(states, to_k, to_v):
        q, k, v = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (attn.to_q(hidden), to_k(states), to_v(states))
        )
        return ((q @ k.mT / k.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)

    own = NAME.replace(".", "/")
    joint = read(tokens.flatten(1, 2), kv.to_k[own], kv.to_v[own])
    expected = attn.to_out[0](read(text, attn.to_k, attn.to_v) + 0.65 * joint)
    number = layer(installed, hidden, text, kv(tokens, 0.65))
    table = layer(installed, hidden, text, kv(tokens, torch.tensor(0.65)))
    torch.testing.assert_close(number, expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(table, expected, atol=2e-6, rtol=1e-5)
    assert (number - layer(installed, hidden, text)).abs().max() > 0.1


@pytest.mark.parametrize("scales", [(0.3, 0.9), (1.0, 0.0), (0.0, 0.7), (2.0, 1e-4)])
def test_each_subject_has_its_scale(installed, subject_model, given, scales):
    _, text, tokens = given
    hidden = torch.randn(1, 64, 64)
    pack = subject_model.key_values(tokens, torch.tensor(scales)[None, :, None])
    expected = formula(installed, subject_model.key_values, hidden, text, tokens, torch.tensor(scales).expand(64, 2))
    torch.testing.assert_close(layer(installed, hidden, text, pack), expected, atol=5e-6, rtol=1e-5)


def test_scale_zero_is_leaving_out(installed, subject_model, given):
    tokens = given[2]
    for keep in (0, 1):
        scales = torch.zeros(1, 2, 1)
        scales[:, keep] = 0.8
        both = run(installed, given, subject_model.key_values(tokens, scales))
        alone = run(installed, given, subject_model.key_values(tokens[:, keep : keep + 1], 0.8))
        torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)
    off = run(installed, given, subject_model.key_values(tokens, torch.zeros(1, 2, 1)))
    assert torch.equal(off, run(installed, given))
    assert torch.equal(run(installed, given, subject_model.key_values(tokens, 0.0)), off)


def test_scales_are_continuous(installed, subject_model, given):
    def at(scale):
        pair = torch.tensor([0.8, scale])[None, :, None]
        return run(installed, given, subject_model.key_values(given[2], pair))

    values = [at(s) for s in (0.0, 1e-6, 1e-3, 2e-3, 0.5, 0.501)]
    steps = [float((b - a).abs().max()) for a, b in zip(values, values[1:], strict=False)]
    assert steps[0] < 1e-4 and steps[1] < 0.05 and steps[2] < 0.05 and steps[4] < 0.01
    assert steps[3] > 0.05, "the second subject must matter in the end"


def test_layer_scales(encoder, subjects, installed, given):
    """The longest fitting prefix counts; keys stay, values carry scale times factor."""
    subject = subjects[0].with_(scale=0.7, layer_scales={"down": 0.0, "down_blocks.1": 0.5, "up": 2.0})
    pack = encoder.conditioning([subject], guidance=False)["ip_adapter_image_embeds"][0][0]
    seen = set()
    for name in encoder.config.layers:
        own, index = name.replace(".", "/"), list(encoder.config.layers).index(name)
        factor = {"down_blocks.0": 0.0, "down_blocks.1": 0.5}.get(name[:13], 2.0 if name.startswith("up") else 1.0)
        before = 2 * sum(list(encoder.config.layers.values())[:index]) * pack.shape[1]  # numbers of other layers
        width, tokens = encoder.config.layers[name], pack.shape[1]
        key, value = pack[0].flatten()[before : before + 2 * width * tokens].view(2, tokens, width)
        torch.testing.assert_close(key, encoder.model.key_values.to_k[own](subject.tokens))
        expected = 0.7 * factor * encoder.model.key_values.to_v[own](subject.tokens)
        torch.testing.assert_close(value, expected)
        seen.add(factor)
    assert seen == {0.0, 0.5, 1.0, 2.0}
    nowhere = encoder.conditioning([subject.with_(layer_scales={"": 0.0})], guidance=False)
    assert torch.equal(run(installed, given, nowhere["ip_adapter_image_embeds"][0][0]), run(installed, given))


# -- windows
def test_a_window_is_active_only_in_its_part(encoder, subjects, installed, given):
    def pack(*used):
        return encoder.conditioning(used, guidance=False)["ip_adapter_image_embeds"][0][0]

    early, late = subjects[0].with_(steps=(0.2, 0.6)), subjects[1].with_(steps=(0.6, 1.0))
    for timestep in (999, 801, 800, 700, 401, 399, 200, 1, 0):
        progress = 1 - timestep / 1000
        active = [
            plain for s, plain in zip((early, late), subjects, strict=True) if s.steps[0] <= progress < s.steps[1]
        ]
        active += [subjects[1]] if timestep == 0 else []  # the end belongs to the window
        found = run(installed, given, pack(early, late), timestep)
        expected = run(installed, given, pack(*active) if active else None, timestep)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert bool(active) == (not torch.equal(found, run(installed, given, timestep=timestep)))


# -- regions
def regions_of(*boxes, size=(64, 64)) -> torch.Tensor:
    masks = torch.zeros(1, len(boxes), *size)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        masks[0, i, y0:y1, x0:x1] = 1
    return masks


def test_outside_its_region_a_subject_does_nothing(installed, subject_model, given):
    _, text, tokens = given
    hidden = torch.randn(1, 64, 64)
    regions = regions_of((0, 0, 24, 64), (40, 16, 64, 40))
    out = layer(installed, hidden, text, subject_model.key_values(tokens, 0.8), regions=regions)
    plain = layer(installed, hidden, text)
    inside = region_weights(regions, 64, hidden)
    assert torch.equal(out[0, inside.sum(1) == 0], plain[0, inside.sum(1) == 0])
    for i in range(2):
        only = inside[:, i] == 1
        alone = layer(installed, hidden, text, subject_model.key_values(tokens[:, i : i + 1], 0.8))
        torch.testing.assert_close(out[0, only], alone[0, only], atol=2e-6, rtol=1e-5)
        assert only.sum() in (24, 9) and not torch.allclose(out[0, only], plain[0, only], atol=1e-2)


def test_regions_everywhere_are_no_regions(installed, subject_model, given):
    pack = subject_model.key_values(given[2], torch.tensor([[[0.4], [0.9]]]))
    whole = run(installed, given, pack, regions=torch.ones(1, 2, 64, 64))
    torch.testing.assert_close(whole, run(installed, given, pack), atol=1e-5, rtol=0)
    assert torch.equal(run(installed, given, pack, regions=torch.zeros(1, 2, 64, 64)), run(installed, given))


@pytest.mark.parametrize("progress, active", [(0.1, (0, 0)), (0.3, (1, 0)), (0.5, (1, 1)), (0.8, (0, 1))])
def test_regions_scales_and_windows_together(installed, subject_model, given, progress, active):
    """Also with soft edges: a region is a scale that varies over the picture."""
    _, text, tokens = given
    hidden = torch.randn(1, 64, 64)
    scales, window = torch.tensor([0.5, 1.2]), torch.tensor([[0.2, 0.6], [0.4, 1.1]])
    regions = regions_of((0, 0, 44, 64), (20, 10, 64, 61))
    weight = region_weights(regions, 64, hidden) * scales * torch.tensor(active)
    assert ((weight > 0) & (weight < scales)).any() or not any(active), "no soft edge in this test"
    pack = subject_model.key_values(tokens, scales[None, :, None], window)
    out = layer(installed, hidden, text, pack, progress, regions)
    expected = formula(installed, subject_model.key_values, hidden, text, tokens, weight)
    torch.testing.assert_close(out, expected, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_switched_off_subject_leaves_no_gap(installed, subject_model, given, dtype):
    """Scale 0 in this layer, outside its window, everywhere; the other is outside its region: plain, in any dtype."""
    _, text, tokens = (x.to(dtype) for x in given)
    hidden = torch.randn(1, 64, 64, dtype=dtype)
    model, installed = copy.deepcopy(subject_model.key_values).to(dtype), installed.to(dtype)
    for scale in (0.0, 0.5):
        pack = model(tokens, torch.tensor([[[scale], [1.0]]]), torch.tensor([[0.8, 1.1], [0.0, 1.1]]))
        out = layer(installed, hidden, text, pack, 0.5, regions_of((0, 0, 64, 64), (0, 0, 20, 64)))
        plain, outside = layer(installed, hidden, text), torch.arange(64) % 8 >= 3
        assert torch.equal(out[:, outside], plain[:, outside]) and out.isfinite().all()
        assert not torch.equal(out[:, ~outside], plain[:, ~outside])
    assert torch.finfo(torch.float16).min < OFF * 2


@pytest.mark.parametrize("height, width", [(64, 64), (128, 32), (60, 36), (36, 60), (260, 36), (20, 52)])
def test_regions_of_every_shape_fit_every_layer(installed, subject_model, given, height, width):
    latents = torch.randn(1, 4, height // 4, width // 4)
    pack = subject_model.key_values(given[2], 0.8)
    regions = torch.zeros(1, 2, height, width)
    regions[:, 0, : height // 2] = 1
    regions[:, 1, height // 2 :] = 1
    assert run(installed, (latents, *given[1:]), pack, regions=regions).isfinite().all()
    rows, columns = -(-height // 8), -(-width // 8)  # the lower layers'
    weights = region_weights(regions, rows * columns, latents).unflatten(0, (rows, columns))
    assert (weights[: rows // 2, :, 0] == 1).all() and (weights[-(rows // 2) :, :, 0] == 0).all()


def test_a_region_of_another_shape_is_an_error(installed, subject_model, given):
    with pytest.raises(SSRError, match="another shape"):
        run(installed, given, subject_model.key_values(given[2], 0.8), regions=torch.ones(1, 2, 64, 48))


# -- packs
def test_prompts_may_have_subjects_of_their_own(installed, subject_model):
    latents, text, tokens = torch.randn(4, 4, 16, 16), torch.randn(4, 12, D), torch.randn(4, 2, T, D)
    pack = subject_model.key_values(tokens, 0.8).unflatten(0, (2, 2))  # guidance rows x prompts
    copied = pack.repeat_interleave(2, dim=0)  # as pipelines do it for two prompts
    together = installed(latents, 500, text, added_cond_kwargs={"image_embeds": [copied]}).sample
    for i in range(4):
        one = run(installed, (latents[i : i + 1], text[i : i + 1], None), pack.flatten(0, 1)[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], one, atol=1e-5, rtol=0)


def test_prompts_may_have_subjects_of_their_own_without_guidance(installed, subject_model):
    for n in (2, 3):
        latents, text, tokens = torch.randn(n, 4, 16, 16), torch.randn(n, 12, D), torch.randn(n, 2, T, D)
        pack = subject_model.key_values(tokens, 0.8)
        copied = pack[None].expand(n, -1, -1, -1)  # as pipelines do it for n prompts
        together = installed(latents, 500, text, added_cond_kwargs={"image_embeds": [copied]}).sample
        for i in range(n):
            one = run(installed, (latents[i : i + 1], text[i : i + 1], None), pack[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], one, atol=1e-5, rtol=0)


def test_packs_that_do_not_fit(installed, subject_model, given):
    pack = subject_model.key_values(given[2], 0.8)
    with pytest.raises(SSRError, match="columns"):
        run(installed, given, pack[..., :-2])
    with pytest.raises(SSRError, match="do not divide"):
        run(installed, given, pack.expand(3, -1, -1))
    with pytest.raises(SSRError, match="conditioning"):
        run(installed, given, pack[0])


def test_gradients_reach_the_trained_parts(installed, subject_model, given):
    model = copy.deepcopy(subject_model).requires_grad_(True)
    hidden = [torch.randn(1, 2, 65, 48) for _ in range(2)]
    pack, _, _ = model(torch.randn(1, 2, 12, D), hidden)
    latents, text, _ = given
    installed(latents, 10, text, added_cond_kwargs={"image_embeds": [pack[None]]}).sample.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("scales", [(0.8, 0.8), (0.3, 1.0), (0.5, 0.9, 0.7)])
def test_two_packs_are_the_same_and_read_the_negative_tokens_once(encoder, subjects, installed, given, scales):
    """The negative half's N copies of the unconditional tokens are one copy, whatever the scales."""
    latents, text = given[0], given[1]
    used = [subjects[i % 2].with_(scale=scale) for i, scale in enumerate(scales)]
    batch = torch.cat([latents, latents]), torch.cat([text.flip(1), text])
    results = []
    for halves in (False, True):
        packs = encoder.conditioning(used, halves=halves)["ip_adapter_image_embeds"]
        assert len(packs) == 1 + halves
        # As the stock pipelines repeat guidance rows for several pictures.
        packs = [torch.cat([row.repeat(len(latents), 1, 1, 1) for row in pack.chunk(2)]) for pack in packs]
        added = {"image_embeds": packs}
        with torch.no_grad():
            results.append(installed(batch[0], 500, batch[1], added_cond_kwargs=added).sample)
    torch.testing.assert_close(results[0], results[1], atol=2e-5, rtol=1e-4)
    assert encoder.conditioning(used, halves=True)["ip_adapter_image_embeds"][0].shape[2] == subjects[0].tokens.shape[0]


def test_halves_give_way_to_schedules_and_regions(encoder, subjects):
    for change in ({"steps": (0.0, 0.5)}, {"region": (0, 0, 0.5, 1)}):
        used = [subjects[0], subjects[1].with_(**change)]
        found = encoder.conditioning(used, halves=True, size=(64, 64))
        assert len(found["ip_adapter_image_embeds"]) == 1
