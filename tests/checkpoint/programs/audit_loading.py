"""Loads the CLIP checkpoint FOLDER under an audit hook: FOLDER MARK. Prints, a line each:

- OUTSIDE: files that were opened outside the checkpoint, Python and the kernel's folders
- INSIDE: files of the checkpoint that were opened
- CALLS: connections, subprocesses, unpickled names and changes of files
- CODE: whether the file MARK exists, which code of the checkpoint would make
"""

import os
import sys

from pipeline.checkpoint.checkpoint import resolve
from pipeline.encoders.clip import ClipConfig, ClipEncoder
from pipeline.tokenizers.patch import PatchConfig
from pipeline.tokenizers.text import TextTokenizer, TextTokenizerConfig

WATCHED = (
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "pickle.find_class",
    "os.remove",
    "os.rename",
    "os.mkdir",
)
folder, mark = sys.argv[1:]
opened, calls = [], []


def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str | bytes):
        opened.append(os.path.realpath(os.fsdecode(arguments[0])))
    elif event in WATCHED:
        calls.append((event, str(arguments)[:200]))


def load():
    checkpoint = resolve(folder, None, "x")
    for modality, tokenizer in (("image", PatchConfig(kind="patch")), ("text", TextTokenizerConfig(kind="text"))):
        encoder = ClipEncoder(ClipConfig(kind="clip", checkpoint=folder), checkpoint, modality, tokenizer)
        encoder.check("features.x")
        encoder.spec()
        encoder.setup()
    tokenizer = TextTokenizer(TextTokenizerConfig(kind="text"), checkpoint)
    tokenizer.check("features.x.tokenizer")
    tokenizer.setup()


load()  # so that imports of the package's own modules are not reported
sys.addaudithook(hook)
load()
own = (*map(os.path.realpath, (folder, sys.prefix, sys.base_prefix)), "/proc/", "/sys/", "/dev/")
print("OUTSIDE", sorted({one for one in opened if not one.startswith(own)}))
print("INSIDE", sorted({os.path.basename(one) for one in opened if one.startswith(os.path.realpath(folder))}))
print("CALLS", calls)
print("CODE", os.path.exists(mark))
