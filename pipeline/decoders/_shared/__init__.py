"""What the decoders share.

sniff.py        what a file is, by its first bytes
not_media.py    documents, archives and programs, which FFmpeg would take for media
demuxer.py      opening containers: the one place that calls `av.open`
container.py    a container's streams, their exact ends, its packets
rotation.py     frames turned upright
sampling.py     which frames are shown at which instants
pictures.py     frames of a window on their way, within limits
samples.py      samples of a sound, from a sound file or a container
resampling.py   samples at another rate
joined.py       sounds that follow one another in one file
bounds.py       how large a file may be
jpeg.py         JPEG by simplejpeg, where it gives what Pillow gives
rgb.py          Pillow pictures of any mode as 8-bit RGB
camera_raw.py   a camera's raw file, and the preview in it
charset.py      the characters that the bytes of a text are
html.py         HTML to plain text
timed_text.py   subtitles and JSON segments
"""
