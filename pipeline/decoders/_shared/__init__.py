"""Code that several decoders share.

sniff.py              detects what a file is by its first bytes
not_media.py          detects documents, archives and programs, which FFmpeg would take for media
demuxer.py            opens containers with FFmpeg; the only place that calls `av.open`
container.py          a container's streams, their exact ends, its packets
streams.py            properties of a container's streams and packets
decode_plan.py        which pictures of a video stream need to be decoded
rotation.py           turns frames upright
sampling.py           which frames are shown at which instants
pictures.py           limits on the pictures of a window, and the array that they are written into
samples.py            samples of a sound, and those of a sound file
container_samples.py  samples of the audio stream of a container
resampling.py         converts samples to another rate
joined.py             sound files that are several concatenated streams
bounds.py             limits on the size of a file
jpeg.py               decodes JPEG with simplejpeg, if the result equals Pillow's
rgb.py                converts Pillow pictures of any mode to 8-bit RGB
camera_raw.py         detects a camera's raw file, and finds the preview in it
charset.py            decodes the bytes of a text
html.py               converts HTML to plain text
timed_text.py         subtitles and JSON segments
"""
