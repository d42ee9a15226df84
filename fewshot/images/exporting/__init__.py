"""Export a fitted model to a folder that `fewshot.runtime` reads without torch.

Start at `folder` (`export`). `network` writes the encoder as ONNX, `quantized` reduces it to 8 bits, and `translate`
converts learner and memory to their counterparts in the runtime.
"""
