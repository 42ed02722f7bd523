"""`s3dataset demo`: trains a small network on images that stream from S3, with its checkpoints saved to S3.

    images.py     the pictures          place.py      where they go: a local S3, or a prefix of a user's bucket
    data.py       the datasets          training.py   training, validation, checkpoints
    model.py      the network           program.py    all of it, in order
    evaluate.py   the fresh process     figures.py, summary.py   what is left at the end

It needs the extra `demo` (scikit-learn, pillow, matplotlib, tqdm).
"""
