"""What is read over the segments of a version: their ranked rows, their images, what metadata hold."""
