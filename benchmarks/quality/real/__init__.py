"""Base loss alone against base loss + TCM, on the data sets of deep metric learning, where a user has them.

python -m benchmarks.quality.real cub --root ~/data      (README.md has all commands)

configs/       one file a data set: the paper's settings, and ours
config.py      reads and checks them
data_sets.py   from a folder to training and test images, `load`
layouts.py     how each data set lies on disk
images.py      decoding, augmentation, batches
backbones.py   the network, by name
losses.py      the base loss, by name
train.py       one training
measuring.py   what an embedding is judged by, `measure`
records.py     the file of records
ranks.py       several processes
table.py       base beside base + TCM
errors.py      what a user can put right
"""
