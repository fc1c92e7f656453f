"""The demo on scikit-learn's handwritten digits: five classes to learn from, five to be judged on.

Too few classes to show what the loss does for consistency between classes, but both its terms and the
distributions of similarities can be watched.

    run.py        from settings to files             training.py   the images, the two trainings
    student.py    the network and one step of it     measures.py   the numbers
    figure.py     similarities.png
"""
