"""Token-to-patch aligner: the formula, the selection, and what a patch weight of 0 means."""

import pytest
import torch

from ssr_encoder import SSRError, SubjectConfig, TokenToPatchAligner

B, L, P, D, V, H, d, K = 2, 5, 17, 12, 20, 3, 4, 3


@pytest.fixture
def aligner() -> TokenToPatchAligner:
    model = TokenToPatchAligner(D, V, H, d, K).requires_grad_(False)
    torch.nn.init.normal_(model.norm.weight)
    torch.nn.init.normal_(model.norm.bias)
    return model


@pytest.fixture
def inputs() -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.randn(B, L, D), [torch.randn(B, P, V) for _ in range(K)]


def one_head(aligner, query, hidden, k, head):
    """The paper's formula for one scale and one head, with an attention map of its own."""
    rows = slice(head * d, (head + 1) * d)
    q, key = query @ aligner.to_q.weight[rows].T, hidden[-1] @ aligner.to_k.weight[rows].T
    return torch.softmax(q @ key.transpose(1, 2) / d**0.5, -1) @ (hidden[k] @ aligner.to_v[k].weight[rows].T)


def test_sizes_come_from_the_config():
    config = SubjectConfig(query_dim=10, image_dim=14, heads=2, head_dim=6, hidden_layers=[1, 2, 5, 7])
    aligner = TokenToPatchAligner.from_config(config)
    shapes = {name: tuple(value.shape) for name, value in aligner.state_dict().items()}
    assert shapes["to_q.weight"] == (12, 10) and shapes["to_k.weight"] == (12, 14) and shapes["norm.bias"] == (10,)
    assert [shapes[f"to_v.{k}.weight"] for k in range(4)] == [(12, 14)] * 4
    assert [shapes[f"to_out.{k}.weight"] for k in range(4)] == [(10, 12)] * 4
    tokens, scale_embeds, attention = aligner(torch.randn(3, 7, 10), [torch.randn(3, 26, 14)] * 4)
    assert tokens.shape == (3, 28, 10) and scale_embeds.shape == (3, 4, 7, 10) and attention.shape == (3, 2, 7, 26)
    with pytest.raises(ValueError):
        aligner(torch.randn(3, 7, 10), [torch.randn(3, 26, 14)] * 3)


def test_shared_map_equals_a_map_for_each_scale(aligner, inputs):
    query, hidden = inputs
    tokens, scale_embeds, _ = aligner(query, hidden)
    blocks = []
    for k in range(K):
        heads = torch.cat([one_head(aligner, query, hidden, k, head) for head in range(H)], dim=-1)
        blocks.append(heads @ aligner.to_out[k].weight.T)
    torch.testing.assert_close(scale_embeds, torch.stack(blocks, 1), atol=1e-6, rtol=1e-5)
    joined = torch.cat(blocks, dim=1)  # scale-major
    normal = (joined - joined.mean(-1, keepdim=True)) / (joined.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(tokens, normal * aligner.norm.weight + aligner.norm.bias, atol=1e-5, rtol=1e-5)


def test_one_map_for_all_scales(aligner, inputs):
    query, hidden = inputs
    counts = {"to_q": 0, "to_k": 0}
    for name in counts:
        getattr(aligner, name).register_forward_hook(lambda *_, name=name: counts.update({name: counts[name] + 1}))
    aligner(query, hidden)
    assert counts == {"to_q": 1, "to_k": 1}


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_sum_to_one(aligner, inputs, weighted):
    query, hidden = inputs
    weights = torch.rand(B, P) * (torch.rand(B, P) > 0.5) if weighted else None
    attention = aligner.attention(query, hidden[-1], weights)
    assert attention.shape == (B, H, L, P)
    torch.testing.assert_close(attention.sum(-1), torch.ones(B, H, L))
    torch.testing.assert_close(attention, aligner(query, hidden, weights)[2])


@pytest.mark.parametrize("value", [0.0, -3.0, 1e6, 1e30, float("inf"), float("nan")])
def test_patches_of_weight_zero_have_no_influence(aligner, inputs, value):
    query, hidden = inputs
    weights = torch.rand(B, P) + 0.1
    weights[0, ::2] = 0
    weights[1, :9] = 0
    before = aligner(query, hidden, weights)
    changed = [torch.where((weights == 0)[..., None], torch.full_like(h, value), h) for h in hidden]
    after = aligner(query, changed, weights)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)
    assert (after[2].masked_select((weights == 0)[:, None, None]) == 0).all()
    moved = [torch.where((weights > 0)[..., None], h + 1, h) for h in hidden]
    assert not torch.allclose(before[0], aligner(query, moved, weights)[0])


def test_soft_weights_multiply_and_renormalise(aligner, inputs):
    query, hidden = inputs
    weights = torch.rand(B, P) + 0.01
    plain = aligner.attention(query, hidden[-1])
    expected = plain * weights[:, None, None]
    torch.testing.assert_close(
        aligner.attention(query, hidden[-1], weights), expected / expected.sum(-1, keepdim=True), atol=1e-6, rtol=1e-4
    )
    torch.testing.assert_close(aligner.attention(query, hidden[-1], torch.full((B, P), 0.3)), plain)
    tiny = torch.zeros(B, P)
    tiny[:, 3] = 1e-9  # a single pixel of a large mask
    assert torch.equal(
        aligner.half().attention(query.half(), hidden[-1].half(), tiny)[..., 3].float(), torch.ones(B, H, L)
    )


def test_config_refuses_what_it_does_not_know():
    config = SubjectConfig(layers={"mid_block.attentions.0.transformer_blocks.0.attn2": 8})
    assert SubjectConfig.from_dict(config.to_dict()) == config
    with pytest.raises(SSRError, match="unknown key num_scales"):
        SubjectConfig.from_dict({**config.to_dict(), "num_scales": 6})
    for name, value in [
        ("heads", "8"),
        ("head_dim", 0),
        ("several_scale", -1),
        ("several_scale", "1"),
        ("hidden_layers", []),
        ("layers", [320]),
        ("image_mean", [1]),
    ]:
        with pytest.raises(SSRError, match=name):
            SubjectConfig.from_dict({name: value})
