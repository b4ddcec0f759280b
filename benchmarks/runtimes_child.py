"""One model of a bundle in another runtime; run by `benchmarks.runtimes` in the environment of that runtime.

    python runtimes_child.py RUNTIME BUNDLE WORK ARM

It needs the runtime and numpy. What it finds it prints as one line of JSON.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np


def main(runtime, bundle, work, arm):
    """Convert, run, compare."""
    script = importlib.util.spec_from_file_location("run", os.path.join(bundle, "run.py"))
    run = importlib.util.module_from_spec(script)
    script.loader.exec_module(run)
    stated = run.read_bundle(bundle)
    model, feeds = stated["models"][int(arm)], run.read_inputs(bundle, stated)
    expected = run.read_expected(bundle, model)
    os.chdir(work)
    path = shutil.copy(os.path.join(bundle, model["file"]), "model.onnx")  # some converters write into what they read
    run_once, size, version = RUNTIMES[runtime](path, feeds, list(model["outputs"]))
    outputs = run_once()
    errors = [run.output_error(array, np.reshape(outputs[name], array.shape)) for name, array in expected.items()]
    print(json.dumps({"error": max(errors), "bytes": size, "version": version}))


def openvino(path, feeds, names):
    """OpenVINO by itself, not as a provider; the file is what `ovc` writes."""
    import openvino as ov

    model = ov.convert_model(path)
    ov.save_model(model, "model.xml", compress_to_fp16=False)
    compiled = ov.compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    return lambda: {name: compiled(feeds)[name] for name in names}, os.path.getsize("model.bin"), ov.__version__


def tflite(path, feeds, names):
    """TensorFlow Lite by onnx2tf, in LiteRT."""
    import onnx2tf
    import tensorflow
    from ai_edge_litert.interpreter import Interpreter

    # By Keras it would write every weight as a number in JSON, twice; without, it takes the way by functions.
    del tensorflow.lite.TFLiteConverter.from_keras_model
    # It compares intermediate values on sample images, which it would download.
    np.save("calibration_image_sample_data_20x128x128x3_float32.npy", np.zeros((20, 128, 128, 3), np.float32))
    onnx2tf.convert(
        path,
        output_folder_path="tf",
        non_verbose=True,
        copy_onnx_input_output_names_to_tflite=True,
        disable_strict_mode=True,  # which runs every op of a transformer many times; the outputs are compared here
        output_signaturedefs=True,
    )
    file = next(os.path.join("tf", name) for name in os.listdir("tf") if name.endswith("float32.tflite"))
    interpreter = Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()

    def run_once():
        for (_name, array), slot in zip(
            sorted(feeds.items()), sorted(interpreter.get_input_details(), key=named), strict=True
        ):
            fits = tuple(slot["shape"]) == array.shape
            turned = array if fits else np.transpose(array, (0, 2, 3, 1))  # it moves channels to the end
            interpreter.set_tensor(slot["index"], turned.astype(slot["dtype"]))
        interpreter.invoke()
        return dict(
            zip(
                names, (interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()), strict=True
            )
        )

    return run_once, os.path.getsize(file), f"by onnx2tf {onnx2tf.__version__}"


def named(slot):
    """The name of a tensor of TensorFlow Lite, without what its converter puts around it."""
    return slot["name"].replace("serving_default_", "").partition(":")[0]


def ncnn(path, feeds, names):
    """Ncnn by pnnx, in float32."""
    import ncnn as runtime

    for number, array in enumerate(feeds.values()):
        np.save(f"in{number}.npy", array)
    files = ",".join(f"in{number}.npy" for number in range(len(feeds)))
    tool = os.path.join(os.path.dirname(sys.executable), "pnnx")
    process = subprocess.run([tool, path, "fp16=0", "input=" + files], capture_output=True, text=True)
    if not os.path.exists("model.ncnn.param"):
        raise RuntimeError(process.stderr.strip().splitlines()[-1])
    net = runtime.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param("model.ncnn.param") != 0:
        raise RuntimeError("ncnn does not know a layer that pnnx left")
    net.load_model("model.ncnn.bin")

    def run_once():
        extractor = net.create_extractor()
        for number, array in enumerate(feeds.values()):
            plain = np.ascontiguousarray(array[0])
            plain = plain.astype(np.int32) if plain.dtype == np.int64 else plain
            extractor.input(f"in{number}", runtime.Mat(plain).clone())
        return {name: np.array(extractor.extract(f"out{number}")[1]) for number, name in enumerate(names)}

    return run_once, os.path.getsize("model.ncnn.bin"), runtime.__version__


def mnn(path, feeds, names):
    """MNN by its own converter; its command line would install a package that reports what is converted."""
    import _tools
    import MNN
    from MNN import expr, nn

    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", path, "--MNNModel", "model.mnn", "--bizCode", "x"])
    if not os.path.exists("model.mnn"):
        raise RuntimeError("mnnconvert gives up on an op, see its output")
    net = nn.load_module_from_file("model.mnn", list(feeds), names)

    def run_once():
        inputs = []
        for array in feeds.values():
            plain = array.astype(np.int32) if array.dtype == np.int64 else array
            kind = expr.int if plain.dtype == np.int32 else expr.float
            inputs.append(expr.const(plain, list(plain.shape), expr.NCHW, kind))
        outputs = [expr.convert(each, expr.NCHW) if each.data_format == expr.NC4HW4 else each for each in net(inputs)]
        return {name: np.array(each.read()) for name, each in zip(names, outputs, strict=True)}

    return run_once, os.path.getsize("model.mnn"), MNN.version()


def executorch(path, feeds, names):
    """ExecuTorch with XNNPACK, from the torch graph that prunegraph makes of the file."""
    import importlib.metadata

    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    import prunegraph as pg

    module = pg.to_torch(path).eval()
    inputs = tuple(torch.from_numpy(array) for array in feeds.values())
    program = torch.export.export(module, inputs)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    with open("model.pte", "wb") as file:
        file.write(lowered.buffer)
    method = Runtime.get().load_program("model.pte").load_method("forward")

    def run_once():
        return dict(zip(names, (each.numpy() for each in method.execute(list(inputs))), strict=True))

    return run_once, os.path.getsize("model.pte"), importlib.metadata.version("executorch")


RUNTIMES = {"openvino": openvino, "tflite": tflite, "ncnn": ncnn, "mnn": mnn, "executorch": executorch}


if __name__ == "__main__":
    main(*sys.argv[1:])
