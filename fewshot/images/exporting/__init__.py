"""Export a fitted model to a folder that `fewshot.runtime` reads without torch.

Start at `folder` (`export`), which also converts learner and memory to their counterparts in the runtime. `network`
writes the encoder as ONNX, and `quantized` reduces it to 8 bits.
"""
