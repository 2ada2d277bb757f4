"""The readable oracle: the architectures and their variants written down directly, without a thought for speed.

Plain functions of a dict of weights under the published names, in the order in which the papers describe the computation.
Attention is written out (softmax(Q K^T / sqrt(d)) V) unless ``fast_attention`` asks for torch's own, which is what a plain
engineer would call; the speed comparison uses that.

Axes: b scenes, v views, h x w pixels, p patch size, n tokens, d width.
"""

import math

import torch
import torch.nn.functional as F


class Oracle:
    def __init__(self, weights, *, head_dim, patch_size, fast_attention=False, **options):
        self.weights = weights
        self.head_dim, self.patch_size = head_dim, patch_size
        self.fast_attention = fast_attention
        self.options = options

    # --- parts ---------------------------------------------------------------------------------------------------------

    def linear(self, x, name):
        return F.linear(x, self.weights[f"{name}.weight"])

    def layer_norm(self, x, name=None):
        weight = None if name is None else self.weights[f"{name}.weight"]
        return F.layer_norm(x, x.shape[-1:], weight, None, 1e-5)

    def rms_norm(self, x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weights[f"{name}.weight"]

    def heads(self, x):
        b, n, d = x.shape
        return x.reshape(b, n, d // self.head_dim, self.head_dim).transpose(1, 2)

    def attention(self, q, k, v, name, factor=1.0):
        q = self.rms_norm(self.heads(q), f"{name}.q_norm")
        k = self.rms_norm(self.heads(k), f"{name}.k_norm")
        q, k, v = q * factor, k * factor, self.heads(v)
        if self.fast_attention:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.head_dim), dim=-1) @ v
        b, _, n, _ = out.shape
        return self.linear(out.transpose(1, 2).reshape(b, n, -1), f"{name}.fc")

    def self_attention(self, x, name):
        q, k, v = self.linear(x, f"{name}.to_qkv").chunk(3, dim=-1)
        return self.attention(q, k, v, name)

    def cross_attention(self, x, source, name, views):
        k, v = self.linear(source, f"{name}.to_kv").chunk(2, dim=-1)
        factor = 1.0
        if self.options.get("log_scale", "none") == "fixed":
            factor = math.log(max(views, 2)) - math.log(self.options["train_input_views"]) + 1
        elif self.options.get("log_scale", "none") == "learned":
            factor = math.log(max(views, 2)) - self.weights[f"{name}.log_scale"] + 1
        return self.attention(self.linear(x, f"{name}.to_q"), k, v, name, factor)

    def mlp(self, x, name):
        return self.linear(F.gelu(self.linear(x, f"{name}.mlp.mlp.0")), f"{name}.mlp.mlp.2")

    def rays(self, c2w, intrinsics, height, width):
        """Moment and direction of the ray through each pixel centre: [b, v, h, w, 6]."""
        fx, fy, cx, cy = (intrinsics[..., i, None, None] for i in range(4))
        row, column = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        camera = torch.stack([(column - cx) / fx, (row - cy) / fy, torch.ones_like(column - cx)], dim=-1)
        world = torch.einsum("bvij,bvhwj->bvhwi", c2w[..., :3, :3], camera)
        direction = world / world.norm(dim=-1, keepdim=True)
        origin = c2w[..., None, None, :3, 3].expand_as(direction)
        return torch.cat([torch.cross(origin, direction, dim=-1), direction], dim=-1)

    def patches(self, pixels):
        """[b, v, h, w, c] -> [b, v, patches, p * p * c]."""
        b, v, h, w, c = pixels.shape
        p = self.patch_size
        grid = pixels.reshape(b, v, h // p, p, w // p, p, c).permute(0, 1, 2, 4, 3, 5, 6)
        return grid.reshape(b, v, (h // p) * (w // p), p * p * c)

    def head(self, x, norm, height, width):
        """[b, v, patches, d] -> images [b, v, 3, h, w]."""
        b, v, _, _ = x.shape
        p = self.patch_size
        rgb = torch.sigmoid(self.linear(self.layer_norm(x, norm), "image_token_decoder.1"))
        rgb = rgb.reshape(b, v, height // p, width // p, p, p, 3).permute(0, 1, 6, 2, 4, 3, 5)
        return rgb.reshape(b, v, 3, height, width)

    def tokens(self, batch, image_tokenizer):
        """Input tokens [b, vi, patches, d] and target queries [b, vt, patches, d]."""
        height, width = batch["input_images"].shape[-2:]
        rgb = batch["input_images"].permute(0, 1, 3, 4, 2) * 2 - 1
        seen = self.rays(batch["input_c2w"], batch["input_intrinsics"], height, width)
        if self.options.get("input_rgb", True):
            seen = torch.cat([rgb, seen], dim=-1)
        asked = self.rays(batch["target_c2w"], batch["target_intrinsics"], height, width)
        return (
            self.linear(self.patches(seen), f"{image_tokenizer}.1"),
            self.linear(self.patches(asked), "target_pose_tokenizer.1"),
        )

    # --- the architectures ---------------------------------------------------------------------------------------------

    def affine_block(self, x, name):
        x = x + self.self_attention(self.layer_norm(x, f"{name}.norm1"), f"{name}.attn")
        return x + self.mlp(self.layer_norm(x, f"{name}.norm2"), name)

    def decoder_only(self, batch):
        height, width = batch["input_images"].shape[-2:]
        inputs, targets = self.tokens(batch, "image_tokenizer")
        b, vi, n, d = inputs.shape
        vt = targets.shape[1]
        repeated = inputs.reshape(b, 1, vi * n, d).repeat(1, vt, 1, 1).reshape(b * vt, vi * n, d)
        x = torch.cat([repeated, targets.reshape(b * vt, n, d)], dim=1)
        x = self.layer_norm(x, "transformer_input_layernorm")
        for i in range(self.options["layers"]):
            x = self.affine_block(x, f"transformer_blocks.{i}")
        return self.head(x[:, -n:].reshape(b, vt, n, d), "image_token_decoder.0", height, width)

    def encoder_decoder(self, batch):
        height, width = batch["input_images"].shape[-2:]
        inputs, targets = self.tokens(batch, "image_tokenizer")
        b, vi, n, d = inputs.shape
        vt = targets.shape[1]
        latents = self.weights["n_light_field_latent"]
        x = torch.cat([latents[None].repeat(b, 1, 1), inputs.reshape(b, vi * n, d)], dim=1)
        for i in range(self.options["encoder_layers"]):
            x = self.affine_block(x, f"transformer_encoder.{i}")
        kept = x[:, : len(latents)].repeat_interleave(vt, dim=0)
        x = torch.cat([targets.reshape(b * vt, n, d), kept], dim=1)
        x = self.layer_norm(x, "transformer_input_layernorm_decoder")
        for i in range(self.options["decoder_layers"]):
            x = self.affine_block(x, f"transformer_decoder.{i}")
        return self.head(x[:, :n].reshape(b, vt, n, d), "image_token_decoder.0", height, width)

    def dual_stream(self, batch):
        option = self.options.get
        height, width = batch["input_images"].shape[-2:]
        s, t = self.tokens(batch, "rgbp_tokenizer")
        b, vi, _, d = s.shape
        vt = t.shape[1]
        registers = option("registers", 0)
        if registers:
            s = torch.cat([self.weights["register_input"][:, None].repeat(b, vi, 1, 1), s], dim=2)
            t = torch.cat([self.weights["register_output"][:, None].repeat(b, vt, 1, 1), t], dim=2)
        n = s.shape[2]
        update, cross_only = option("input_update", "per-layer"), option("target_block", "self-cross") == "cross"

        def within(x, attention, mlp):
            """One layer of the input stream."""
            x = x.reshape((b, vi * n, d) if option("input_scope", "local") == "global" else (b * vi, n, d))
            if attention is not None:
                x = x + self.self_attention(self.layer_norm(x), attention)
            return (x + self.mlp(self.layer_norm(x), mlp)).reshape(b, vi * n, d)

        def input_layer(x, i):
            name = f"input_self_attn_blocks.{i}"
            if option("shared_weights", False):
                return within(x, f"self_cross_blocks.{i}.self_attn", f"self_cross_blocks.{i}")
            return within(x, None if update == "ffn" else f"{name}.attn", name)

        for i in range(option("extra_encoder_layers", 0)):
            s = within(s, f"extra_enc.{i}.attn", f"extra_enc.{i}")
        if update == "encode-first":
            for i in range(option("layers")):
                s = input_layer(s, i)
        for i in range(option("layers")):
            if update in ("per-layer", "ffn"):
                s = input_layer(s, i)
            source = self.layer_norm(s.reshape(b, vi * n, d))
            if cross_only:
                name, attention = f"cross_attn_blocks.{i}", f"cross_attn_blocks.{i}.attn"
            else:
                name, attention = f"self_cross_blocks.{i}", f"self_cross_blocks.{i}.cross_attn"
                t = t.reshape(b * vt, n, d)
                t = t + self.self_attention(self.layer_norm(t), f"{name}.self_attn")
            t = t.reshape(b, vt * n, d)
            t = t + self.cross_attention(self.layer_norm(t), source, attention, vi)
            t = t + self.mlp(self.layer_norm(t), name)
        return self.head(t.reshape(b, vt, n, d)[:, :, registers:], None, height, width)
