"""CAT-Seg's aggregator, written out from its description: every guidance concatenated, every filler and every volume made.

Axes as einsum has them: b samples, t and s classes, p prompts, c channels, h and w grid, n and m tokens, a heads, d and e
channels of a head.
"""

import torch
import torch.nn.functional as F


class AggregatorOracle:
    """Runs the weights of a state dict in the published layout."""

    def __init__(self, weights, config):
        self.weights, self.config = weights, config

    def linear(self, name, x):
        return torch.einsum("...c,dc->...d", x, self.weights[f"{name}.weight"]) + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        return (x - mean) / (variance + 1e-5).sqrt() * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def conv(self, name, x):
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def heads(self, x):
        return x.unflatten(-1, (self.config.heads, -1))

    # --- volume ----------------------------------------------------------------------------------------------------

    def volume(self, image, text):
        """[b, t, channels, h, w]"""
        image, text = unit(image, 1), unit(text, -1)
        if self.config.volume == "cost":
            return torch.einsum("bchw,btpc->btphw", image, text)
        text = unit(text.mean(2), -1)
        classes, (height, width) = text.shape[1], image.shape[2:]
        return torch.cat(
            [
                image[:, None].expand(-1, classes, -1, -1, -1),
                text[..., None, None].expand(-1, -1, -1, height, width),
            ],
            dim=2,
        )

    # --- space -----------------------------------------------------------------------------------------------------

    def window_attention(self, name, x, guidance, mask):
        """x [b, windows, n, c] -> the same"""
        seen = x if guidance is None else torch.cat([x, guidance], dim=-1)
        q, k, v = (self.heads(self.linear(f"{name}.{part}", y)) for part, y in (("q", seen), ("k", seen), ("v", x)))
        logits = torch.einsum("bgnad,bgmad->bganm", q / q.shape[-1] ** 0.5, k)
        if mask is not None:
            logits = logits + mask[:, None]
        out = torch.einsum("bganm,bgmad->bgnad", logits.softmax(-1), v).flatten(-2)
        return self.linear(f"{name}.proj", out)

    def window_block(self, name, x, guidance, shifted):
        """x [b, h, w, c] -> the same"""
        grid = x.shape[1:3]
        size = min(self.config.window_size, *grid)
        shift = self.config.window_size // 2 if shifted and min(grid) > self.config.window_size else 0
        y = self.norm(f"{name}.norm1", x).roll((-shift, -shift), (1, 2))
        if guidance is not None:
            guidance = partition(guidance.roll((-shift, -shift), (1, 2)), size)
        mask = None
        if shift:
            # A row that was rolled in from the other edge is no neighbour; so for columns.
            came = [((torch.arange(edge) + shift) >= edge).float() for edge in grid]
            place = torch.stack(torch.meshgrid(*came, indexing="ij"), dim=-1)[None]
            place = partition(place, size)[0]
            mask = torch.where((place[:, :, None] == place[:, None]).all(-1), 0.0, -100.0).to(x.device)
        y = merge(self.window_attention(f"{name}.attn", partition(y, size), guidance, mask), grid, size)
        x = x + y.roll((shift, shift), (1, 2))
        y = F.gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x)))
        return x + self.linear(f"{name}.mlp.fc2", y)

    def windows(self, name, x, guidance):
        """x [b, t, h, w, c], guidance [b, h, w, c] -> as x"""
        flat = x.flatten(0, 1)
        if guidance is not None:
            guidance = self.norm(f"{name}.guidance_norm", guidance)
            guidance = guidance[:, None].expand(-1, x.shape[1], -1, -1, -1).flatten(0, 1)
        flat = self.window_block(f"{name}.block_1", flat, guidance, shifted=False)
        return self.window_block(f"{name}.block_2", flat, guidance, shifted=True).view(x.shape)

    def bottleneck(self, name, x, guidance):
        """x [b, t, h, w, c], guidance [b, h, w, c] -> as x, with the stored statistics"""

        def batch_norm(part, y):
            mean, variance, weight, bias = (
                self.weights[f"{name}.conv_layer.{part}.{kind}"][:, None, None]
                for kind in ("running_mean", "running_var", "weight", "bias")
            )
            return (y - mean) / (variance + 1e-5).sqrt() * weight + bias

        y = x.flatten(0, 1).permute(0, 3, 1, 2)
        if guidance is not None:
            guidance = guidance[:, None].expand(-1, x.shape[1], -1, -1, -1).flatten(0, 1).permute(0, 3, 1, 2)
            y = torch.cat([y, guidance], dim=1)
        before = y = self.conv(f"{name}.conv_linear", y)
        for part in (1, 2):
            y = batch_norm(f"bn{part}", self.conv(f"{name}.conv_layer.conv{part}", y)).relu()
        y = (batch_norm("bn3", self.conv(f"{name}.conv_layer.conv3", y)) + before).relu()
        return y.permute(0, 2, 3, 1).reshape(x.shape)

    # --- classes ---------------------------------------------------------------------------------------------------

    def class_attention(self, name, x, guidance):
        """x, guidance [n, t, c] -> as x"""
        seen = x if guidance is None else torch.cat([x, guidance], dim=-1)
        q, k, v = (self.heads(self.linear(f"{name}.{part}", y)) for part, y in (("q", seen), ("k", seen), ("v", x)))
        if self.config.attention == "full":
            logits = torch.einsum("ntad,nsad->nats", q, k) / q.shape[-1] ** 0.5
            return torch.einsum("nats,nsad->ntad", logits.softmax(-1), v).flatten(-2)
        q, k = (torch.where(y > 0, y + 1, y.clamp(max=0).exp()) for y in (q, k))
        summary = torch.einsum("nsad,nsae->nade", k, v / v.shape[1])
        shares = torch.einsum("ntad,nad->nta", q, k.sum(1)) + 1e-6
        return (torch.einsum("ntad,nade->ntae", q, summary) / shares[..., None] * v.shape[1]).flatten(-2)

    def classes(self, name, x, text, pooling):
        """x [b, t, h, w, c], text [b, t, c] -> as x"""
        samples, classes, height, width, _ = x.shape
        pooled = F.avg_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), pooling)
        rows, columns = pooled.shape[2:]
        tokens = pooled.unflatten(0, (samples, classes)).permute(0, 3, 4, 1, 2).flatten(0, 2)
        missing = max(0, self.config.padding - classes)
        if missing:
            filler = self.weights[f"{name}.padding_tokens"].expand(len(tokens), missing, -1)
            tokens = torch.cat([tokens, filler], dim=1)
        if text is not None:
            if missing:
                filler = self.weights[f"{name}.padding_guidance"].expand(samples, missing, -1)
                text = torch.cat([text, filler], dim=1)
            text = text.repeat_interleave(rows * columns, 0)
        tokens = tokens + self.class_attention(f"{name}.attention", self.norm(f"{name}.norm1", tokens), text)
        y = self.linear(f"{name}.MLP.0", self.norm(f"{name}.norm2", tokens)).relu()
        tokens = (tokens + self.linear(f"{name}.MLP.2", y))[:, :classes]
        pooled = tokens.unflatten(0, (samples, rows, columns)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        pooled = F.interpolate(pooled, (height, width), mode="bilinear", align_corners=True)
        return x + pooled.permute(0, 2, 3, 1).view(x.shape)

    # --- decoder ---------------------------------------------------------------------------------------------------

    def up(self, name, x, guidance):
        """x [b * t, c, h, w], guidance [b, c, 2h, 2w] -> [b * t, e, 2h, 2w]"""
        kernel = self.weights[f"{name}.up.weight"]
        x = torch.einsum("bchw,cduv->bdhuwv", x, kernel).flatten(4).flatten(2, 3)
        x = x + self.weights[f"{name}.up.bias"][:, None, None]
        if guidance is not None:
            x = torch.cat([x, guidance.repeat_interleave(len(x) // len(guidance), 0)], dim=1)
        for number in (0, 3):
            x = self.conv(f"{name}.conv.double_conv.{number}", x)
            part = f"{name}.conv.double_conv.{number + 1}"
            groups = x.shape[1] // 16
            x = F.group_norm(x, groups, self.weights[f"{part}.weight"], self.weights[f"{part}.bias"], 1e-5).relu()
        return x

    # --- all -------------------------------------------------------------------------------------------------------

    def __call__(self, image_features, text_features, *guidances, training=False):
        config, image = self.config, image_features
        text = text_features.expand(len(image), -1, -1, -1)
        classes, kept = text.shape[1], None
        if 0 < config.padding < classes:
            best = torch.einsum("bchw,btpc->btphw", unit(image, 1), unit(text, -1)).flatten(2).amax(-1)
            kept = best.topk(config.padding, dim=1).indices
            text = torch.stack([unit(own, -1)[chosen] for own, chosen in zip(text, kept, strict=True)])
        volume = self.volume(image, text)
        x = self.conv("conv1", volume.flatten(0, 1)).unflatten(0, volume.shape[:2]).permute(0, 1, 3, 4, 2)

        appearance = of_text = None
        if config.appearance_guidance_width:
            appearance = self.conv("guidance_projection.0", guidances[0]).relu().permute(0, 2, 3, 1)
        if config.text_guidance_width:
            of_text = self.linear("text_guidance_projection.0", unit(text.mean(2), -1)).relu()
        for layer in range(config.layers):
            if config.spatial == "swin":
                x = self.windows(f"layers.{layer}.swin_block", x, appearance)
            elif config.spatial == "conv":
                x = self.bottleneck(f"layers.{layer}.conv_block", x, appearance)
            if config.classwise:
                x = self.classes(f"layers.{layer}.attention", x, of_text, config.pooling(training=training))

        maps = x.flatten(0, 1).permute(0, 3, 1, 2)
        if config.decoder:
            for number, width in enumerate(config.decoder_guidance_widths):
                guidance = None
                if width:
                    guidance = self.conv(f"decoder_guidance_projection.{number}.0", guidances[1 + number]).relu()
                maps = self.up(f"decoder{number + 1}", maps, guidance)
        logits = self.conv("head", maps)[:, 0].unflatten(0, x.shape[:2])
        if kept is None:
            return logits
        out = torch.full((len(image), classes, *logits.shape[2:]), -100.0)
        for sample, chosen in enumerate(kept):
            out[sample, chosen] = logits[sample]
        return out


def unit(x, dim):
    return x / x.square().sum(dim, keepdim=True).sqrt()


def partition(x, size):
    """[b, h, w, c] -> [b, windows, n, c]"""
    return x.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def merge(x, grid, size):
    """Undo `partition`."""
    x = x.unflatten(1, (grid[0] // size, grid[1] // size)).unflatten(3, (size, size))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
