"""From items to answers: the classifier of images, on disk and on paper."""
